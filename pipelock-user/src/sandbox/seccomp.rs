//! The system calls that an agent does not get, because they open ways that the cgroup programs never see.
//!
//! Called by [`super::spawn`], which compiles the filters before the fork and installs them last before exec. The
//! filters are inherited and cannot be removed. Everything not listed is allowed: this is no general sandbox.
//!
//! | call | answer | why |
//! |---|---|---|
//! | `socket`, `socketpair` of a family other than UNIX, INET, INET6, NETLINK | EAFNOSUPPORT, and a receipt | PACKET, VSOCK, XDP, ALG, RDS, TIPC, SMC … never reach the cgroup hooks |
//! | `socket(AF_NETLINK)` of a protocol other than ROUTE | EPROTONOSUPPORT, and a receipt | netfilter, sock_diag, audit; ROUTE is read by Java, Go and libc |
//! | INET and INET6 other than stream or datagram sockets of TCP, UDP and MPTCP | EPERM, and a receipt | for want of a capability or a module the kernel refuses raw, ping and SCTP sockets before any hook could record it |
//! | `io_uring_*` | ENOSYS | `IORING_OP_SOCKET` makes sockets that no filter sees; libuv and liburing fall back |
//! | `clone3` | ENOSYS | its flags lie in memory, out of a filter's reach; every libc falls back to `clone` |
//! | `clone`, `unshare` with `CLONE_NEWUSER` or `CLONE_NEWNET` | EPERM | a new user namespace gives back every capability inside it |
//! | `setns` | EPERM | entering a namespace of somebody else |
//! | `bpf`, `perf_event_open`, `userfaultfd` | EPERM | detaching links, reading addresses, widening races |
//! | mount calls (old and new), `pivot_root`, `swapon`, `swapoff` | EPERM | a writable cgroup tree, network file systems whose sockets belong to the kernel |
//! | `init_module`, `finit_module`, `delete_module`, `kexec_*`, `reboot`, `acct` | EPERM | changing the kernel |
//! | `add_key`, `request_key`, `keyctl` | EPERM | `request_key` starts helpers outside the cgroup; keyrings of the session |
//! | `pidfd_getfd` | EPERM | taking a socket out of a process outside |
//! | `ioctl` `TIOCSTI`, `TIOCLINUX` | EPERM | typing into the terminal that the shell outside reads next |
//! | `ptrace`, `process_vm_readv`, `process_vm_writev` | allowed under Landlock, else EPERM | debuggers of own children are legitimate; Landlock keeps them inside, a filter cannot tell |
//! | calls of another ABI (i386, x32) | killed; x32: ENOSYS | they have other numbers, which this table does not know |
//!
//! Refused sockets are answered by the supervisor ([`super::refusals`], seccomp_unotify(2)), so that each leaves a receipt;
//! it only ever answers with an error, so nothing depends on reading the agent's memory, and when it is gone the kernel
//! answers ENOSYS. MPTCP is left to the cgroup programs, which see it wherever the kernel has it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Since 6.15, not yet in libc's tables.
const SYS_OPEN_TREE_ATTR: i64 = 467;
#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// Why the filters could not be built: a defect in the table, never a matter of input.
#[derive(Debug, thiserror::Error)]
#[error("cannot build the system call filter: {0}; this is a defect in pipelock")]
pub struct SeccompError(#[from] seccompiler::BackendError);

/// The compiled filters, ready to be installed after a fork without allocating.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    /// Answered by the kernel.
    answered: Vec<BpfProgram>,
    /// Answered by the supervisor.
    notified: BpfProgram,
}

impl Filters {
    /// Builds the filters of the table above. `deny_ptrace`: refuse ptrace and process_vm_* as well, for kernels
    /// without Landlock.
    ///
    /// # Errors
    /// [`SeccompError`] on a defect in the table.
    pub(super) fn build(deny_ptrace: bool) -> Result<Self, SeccompError> {
        // One filter per answer: seccompiler knows one action a filter, and the kernel runs them all.
        let mut programs = vec![compile(denied(deny_ptrace)?, libc::EPERM)?, compile(missing(), libc::ENOSYS)?];
        if cfg!(target_arch = "x86_64") {
            programs.push(no_x32());
        }
        Ok(Self { answered: programs, notified: notified(sockets()?)? })
    }

    /// Installs the filters on the calling thread, for good, and gives the descriptor on which the supervisor is asked
    /// (close-on-exec). Async-signal-safe; needs `PR_SET_NO_NEW_PRIVS` before.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn install(&self) -> io::Result<OwnedFd> {
        for program in &self.answered {
            set(program, 0)?;
        }
        let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        // A signal would otherwise break off a call that is being answered, and it would be asked, and counted, twice.
        let fd = set(&self.notified, listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)?;
        let fd = libc::c_int::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        // SAFETY: the kernel just made the descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

fn set(program: &BpfProgram, flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: fprog points to `len` instructions that outlive the call, in the kernel's layout (seccompiler's
    // sock_filter is repr(C) of the same four fields); the kernel copies and does not write them.
    let rc = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn compile(rules: Rules, errno: i32) -> Result<BpfProgram, SeccompError> {
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, answer, ARCH)?.try_into()?)
}

/// A rule that holds when every condition holds. Arguments are compared as 32 bits: the kernel takes them as `int` and
/// ignores what stands above (a 64-bit comparison could be dodged by setting those bits).
fn when(conditions: &[(u8, Op, u64)]) -> Result<SeccompRule, SeccompError> {
    let conditions = conditions
        .iter()
        .map(|(arg, op, value)| SeccompCondition::new(*arg, Len::Dword, op.clone(), *value))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(SeccompRule::new(conditions)?)
}

fn denied(deny_ptrace: bool) -> Result<Rules, SeccompError> {
    let mut always = vec![
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_open_tree,
        SYS_OPEN_TREE_ATTR,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_reboot,
        libc::SYS_acct,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_pidfd_getfd,
    ];
    if deny_ptrace {
        always.extend([libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev]);
    }
    let mut rules: Rules = always.into_iter().map(|call| (call, Vec::new())).collect();
    let namespaces = || {
        [libc::CLONE_NEWUSER, libc::CLONE_NEWNET]
            .map(|flag| u64::from(flag.unsigned_abs()))
            .map(|flag| when(&[(0, Op::MaskedEq(flag), flag)]))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    };
    rules.insert(libc::SYS_clone, namespaces()?);
    rules.insert(libc::SYS_unshare, namespaces()?);
    // asm-generic/ioctls.h; TIOCLINUX can paste into the console in the same way.
    let ioctls = [0x5412_u64, 0x541C].into_iter().map(|request| when(&[(1, Op::Eq, request)]));
    rules.insert(libc::SYS_ioctl, ioctls.collect::<Result<_, _>>()?);
    Ok(rules)
}

fn missing() -> Rules {
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_clone3]
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect()
}

/// Compiles rules whose calls the supervisor answers. seccompiler has no such action, so it is put in the place of one
/// that is not used otherwise.
fn notified(rules: Rules) -> Result<BpfProgram, SeccompError> {
    let mark = SeccompAction::Trace(0);
    let mut program: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, mark, ARCH)?.try_into()?;
    for instruction in &mut program {
        if u32::from(instruction.code) == libc::BPF_RET | libc::BPF_K && instruction.k == libc::SECCOMP_RET_TRACE {
            instruction.k = libc::SECCOMP_RET_USER_NOTIF;
        }
    }
    Ok(program)
}

/// The sockets that are refused. Families, types and protocols are compared as `int`, types without their flags.
fn sockets() -> Result<Rules, SeccompError> {
    let number = |value: libc::c_int| u64::from(value.unsigned_abs());
    let open = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let other: Vec<_> = open.map(|family| (0, Op::Ne, number(family))).into();
    let mut refused =
        vec![when(&other)?, when(&[(0, Op::Eq, number(libc::AF_NETLINK)), (2, Op::Ne, number(libc::NETLINK_ROUTE))])?];
    for family in [libc::AF_INET, libc::AF_INET6] {
        // linux/net.h: SOCK_TYPE_MASK is 0xf. INET with type 10 (SOCK_PACKET) means a packet socket.
        for kind in (0..=0xf).filter(|kind| ![libc::SOCK_STREAM, libc::SOCK_DGRAM].contains(kind)) {
            refused.push(when(&[(0, Op::Eq, number(family)), (1, Op::MaskedEq(0xf), number(kind))])?);
        }
        let protocols = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_MPTCP];
        let mut foreign: Vec<_> = protocols.map(|protocol| (2, Op::Ne, number(protocol))).into();
        foreign.push((0, Op::Eq, number(family)));
        refused.push(when(&foreign)?);
    }
    Ok([(libc::SYS_socketpair, vec![when(&other)?]), (libc::SYS_socket, refused)].into())
}

/// x32 calls carry bit 30 in their number and the architecture of x86_64, so a comparison of numbers never meets them.
fn no_x32() -> BpfProgram {
    const X32_BIT: u32 = 0x4000_0000;
    let stmt = |code: u32, k: u32| seccompiler::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut is_x32 = stmt(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32_BIT);
    is_x32.jf = 1;
    vec![
        // Offset 0 of struct seccomp_data: the number of the call.
        stmt(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        is_x32,
        stmt(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
        stmt(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_compiles_with_and_without_ptrace() {
        let with = Filters::build(true).expect("build");
        let without = Filters::build(false).expect("build");
        let size = |filters: &Filters| filters.answered.iter().map(Vec::len).sum::<usize>();
        assert!(size(&with) > size(&without));
        assert!(with.answered.iter().chain([&with.notified]).all(|program| program.len() < 4096));
        let asks = |program: &BpfProgram| program.iter().any(|step| step.k == libc::SECCOMP_RET_USER_NOTIF);
        assert!(asks(&with.notified) && !with.answered.iter().any(asks));
    }

    #[test]
    fn layout_of_an_instruction_is_the_kernels() {
        assert_eq!(size_of::<seccompiler::sock_filter>(), size_of::<libc::sock_filter>());
        assert_eq!(align_of::<seccompiler::sock_filter>(), align_of::<libc::sock_filter>());
    }
}
