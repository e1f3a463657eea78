//! The kernel programs as built by `cargo xtask build-ebpf`, embedded so that users need no BPF toolchain.

/// The ELF object with programs, maps and BTF.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelock-ebpf/pipelock.bpf.o"));
