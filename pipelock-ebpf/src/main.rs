//! The kernel side: thin programs on one cgroup that ask [`pipelock_common::decide`] and carry out what it says.
//!
//! | file | programs |
//! |---|---|
//! | connect | connect4, connect6, getpeername4, getpeername6 |
//! | sendmsg | sendmsg4, sendmsg6, recvmsg4, recvmsg6 |
//! | sock | sock_create, sock_release |
//! | bind | bind4, bind6, post_bind4, post_bind6 |
//! | skb | egress, ingress |
//! | sockops | sock_ops |
//! | sockopt | setsockopt |
//!
//! Loaded and attached by `pipelock::kernel::attach`. Every program promises: what it cannot record, it denies.
#![no_std]
#![no_main]
// The BPF target offers no stable read-modify-write atomics, though the machine (v3) has them.
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "see above")]

mod bind;
mod connect;
mod emit;
mod facts;
mod maps;
mod sendmsg;
mod skb;
mod sock;
mod sockops;
mod sockopt;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Some helpers are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
