//! Plain data shared by the kernel programs and the user side, and the one pure decision function both compile.
#![cfg_attr(not(test), no_std)]

mod reason;
pub use reason::KernelReason;
