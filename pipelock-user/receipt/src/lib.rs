//! Action receipts in a hash chain: canonical form, signature, chain, evidence folder, offline verifier.
//!
//! The recorder room writes with [`chain::ChainWriter`] into a [`folder::Folder`], which [`folder::write_folder`] completes;
//! the command line verifies with [`verify`]. Nothing in here opens a socket, starts a task or reads a policy, so the verifier can be believed on its
//! own. The wire format is the public action receipt v1 inside flight-recorder entries v2: the public verifiers accept
//! our files unchanged. What is ours travels in `ext` and is bound by hashes inside the signed record ([`bind`]).

#![forbid(unsafe_code)]

pub mod bind;
pub mod body;
pub mod canon;
pub mod chain;
pub mod codec;
pub mod draft;
pub mod entry;
pub mod folder;
pub mod read;
pub mod sign;
pub mod stats;
pub mod verify;

pub use chain::{Appended, ChainError, ChainWriter, Closed, Opening};
pub use draft::{ActionDraft, ActionType, Reversibility, SideEffect};
pub use folder::{Folder, FolderError, Room, write_folder};
pub use sign::{PublicKey, SigningKey};
pub use verify::{Options, Problem, ProblemKind, Report, verify_path};

/// Longest line in an evidence file, in bytes without the line end. The public readers stop at 1 MiB too.
pub const MAX_LINE: usize = 1 << 20;
/// Largest whole number that every reader of JSON keeps exact: 2^53 - 1.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;
