//! Where the agent runs: its cgroup, its user, its descriptors, what it may ask of the kernel.
//!
//! Called by the app room. Promises: the agent has no network descriptor from outside, no capability, no way back to
//! one, and is in its cgroup before its first instruction.

pub mod caps;
pub mod cgroup;
mod diag;
pub mod held;
mod landlock;
pub mod limits;
mod mounts;
pub mod netns;
pub mod refusals;
mod seccomp;
pub mod spawn;

/// Whether a test that needs root can be run. Without root that is said, and in CI, which has to be root, it fails: as the
/// end-to-end tests treat a client that is missing.
#[cfg(test)]
#[track_caller]
pub(crate) fn as_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        let place = std::panic::Location::caller();
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{place} needs root, and CI has to be root");
        eprintln!("SKIP: {place} needs root");
    }
    is_root
}
