//! Where the agent runs: its cgroup, its user, its descriptors, what it may ask of the kernel.
//!
//! Called by the app room. Promises: the agent has no network descriptor from outside, no capability, no way back to
//! one, and is in its cgroup before its first instruction.

pub mod caps;
pub mod cgroup;
mod diag;
pub mod environ;
pub mod held;
mod landlock;
pub mod limits;
mod mounts;
pub mod netns;
pub mod refusals;
mod seccomp;
pub mod served;
pub mod spawn;
