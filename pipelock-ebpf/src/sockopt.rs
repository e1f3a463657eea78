//! setsockopt: what would make the host speak to others on the agent's word, or hear for it, is refused or has no effect.
//!
//! Whoever joins a multicast group has the kernel itself send reports (IGMP, MLD) that name the group, which the agent
//! chooses: out of any network interface, from no socket, and so past every other program. All else that an option can do to
//! what leaves is left alone, because the packet hooks see it: an option that leads packets elsewhere (SO_BINDTODEVICE,
//! SO_MARK, source routes, IP_TRANSPARENT, per-socket IPsec) makes them leave by another device than loopback, and one that
//! adds to them (IP_OPTIONS, IPV6_RTHDR and its like, flow labels) is read by nobody but this host.
//!
//! | option | answer |
//! |---|---|
//! | joining a group, choosing sources in one, joining an anycast address | EPERM, and a receipt that names the group |
//! | SO_BROADCAST | success, without effect: Go sets it on every socket it makes |

use crate::connect::{PASS, REFUSE};
use crate::emit::{Attempt, deny, note_origin};
use crate::maps::sock_state_or_new;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sockopt;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use pipelock_common::{Addr, KernelReason, SockKey, hook, sock_flag};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
// linux/in.h, linux/in6.h, asm-generic/socket.h
const SOL_IP: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SOL_IPV6: i32 = 41;
const SO_BROADCAST: i32 = 6;
const IP_ADD_MEMBERSHIP: i32 = 35;
const IP_UNBLOCK_SOURCE: i32 = 37;
const IP_BLOCK_SOURCE: i32 = 38;
const IP_ADD_SOURCE_MEMBERSHIP: i32 = 39;
const IP_MSFILTER: i32 = 41;
const IPV6_JOIN_GROUP: i32 = 20;
const IPV6_JOIN_ANYCAST: i32 = 27;
/// These five at both levels.
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_UNBLOCK_SOURCE: i32 = 44;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_MSFILTER: i32 = 48;

/// A page at its smallest: of a longer value the program sees the start only.
const PAGE: i32 = 4096;
/// As `optlen`: the kernel does nothing more, and the call succeeds.
const NO_EFFECT: i32 = -1;
/// As `optlen`: the kernel takes the value as the agent gave it.
const AS_GIVEN: i32 = 0;

#[cgroup_sockopt(setsockopt)]
pub fn pl_setsockopt(ctx: SockoptContext) -> i32 {
    let option = ctx.sockopt;
    // SAFETY: the context is valid.
    let (level, name) = unsafe {
        (core::ptr::read_volatile(&raw const (*option).level), core::ptr::read_volatile(&raw const (*option).optname))
    };
    match (level, name) {
        // `struct ip_mreq` and its like begin with the group.
        (
            SOL_IP,
            IP_ADD_MEMBERSHIP | IP_UNBLOCK_SOURCE | IP_BLOCK_SOURCE | IP_ADD_SOURCE_MEMBERSHIP | IP_MSFILTER,
        ) => refuse(&ctx, Group::V4),
        // `struct ipv6_mreq` too.
        (SOL_IPV6, IPV6_JOIN_GROUP | IPV6_JOIN_ANYCAST) => refuse(&ctx, Group::V6),
        (
            SOL_IP | SOL_IPV6,
            MCAST_JOIN_GROUP | MCAST_BLOCK_SOURCE | MCAST_UNBLOCK_SOURCE | MCAST_JOIN_SOURCE_GROUP | MCAST_MSFILTER,
        ) => refuse(&ctx, Group::Named),
        (SOL_SOCKET, SO_BROADCAST) => {
            // SAFETY: the context is valid, and this field may be written.
            unsafe { core::ptr::write_volatile(&raw mut (*option).optlen, NO_EFFECT) };
            PASS
        }
        _ => {
            // SAFETY: as above. A value longer than what the program sees would be refused otherwise.
            unsafe {
                if core::ptr::read_volatile(&raw const (*option).optlen) > PAGE {
                    core::ptr::write_volatile(&raw mut (*option).optlen, AS_GIVEN);
                }
            }
            PASS
        }
    }
}

/// Where in the value the group is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// An IPv4 address at the start.
    V4,
    /// An IPv6 address at the start.
    V6,
    /// In a `sockaddr_storage` behind the number of an interface (`struct group_req` and its like).
    Named,
}

#[inline(always)]
fn refuse(ctx: &SockoptContext, form: Group) -> i32 {
    // SAFETY: the context is valid.
    let sk = unsafe { (*ctx.sockopt).__bindgen_anon_1.sk };
    if sk.is_null() {
        return REFUSE;
    }
    // SAFETY: the socket of the context, not null.
    let (family, sock_type, protocol) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*sk).family),
            core::ptr::read_volatile(&raw const (*sk).type_),
            core::ptr::read_volatile(&raw const (*sk).protocol),
        )
    };
    if family != AF_INET && family != AF_INET6 {
        // It knows no such option.
        return PASS;
    }
    // SAFETY: takes the context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: the socket of the context, not null.
    let Some(state) = (unsafe { sock_state_or_new(sk) }) else {
        return REFUSE;
    };
    // SAFETY: socket storage, which lives as long as the socket.
    let state = unsafe { &mut *state };
    note_origin(state);
    state.flags |= sock_flag::AGENT;
    let attempt = Attempt {
        // The kernel tells a program at this hook no cookie of the socket.
        sock: SockKey { netns, cookie: 0 },
        dst: group(ctx.sockopt, form),
        protocol: protocol as u16,
        sock_type: sock_type as u8,
        family: if family == AF_INET6 { 6 } else { 4 },
        hook: hook::SETSOCKOPT,
        ..Attempt::EMPTY
    };
    deny(&attempt, state, KernelReason::AddressDenied as u32);
    REFUSE
}

/// The group that the value names; zero where it is too short to.
#[inline(always)]
fn group(option: *const bpf_sockopt, form: Group) -> Addr {
    // SAFETY: the context is valid; the two fence the value in, and everything read lies between them.
    unsafe {
        let start = core::ptr::read_volatile(&raw const (*option).__bindgen_anon_2.optval) as usize;
        let end = core::ptr::read_volatile(&raw const (*option).__bindgen_anon_3.optval_end) as usize;
        let (v4, v6) = match form {
            Group::V4 => (Some(0), None),
            Group::V6 => (None, Some(0)),
            Group::Named => {
                if start + 12 > end {
                    return Addr::NONE;
                }
                match u32::from(core::ptr::read_volatile((start + 8) as *const u16)) {
                    AF_INET => (Some(12), None),
                    AF_INET6 => (None, Some(16)),
                    _ => (None, None),
                }
            }
        };
        if let Some(at) = v4
            && start + at + 4 <= end
        {
            return Addr::from_be4(core::ptr::read_volatile((start + at) as *const u32));
        }
        if let Some(at) = v6
            && start + at + 16 <= end
        {
            let word = |index: usize| core::ptr::read_volatile((start + at + index * 4) as *const u32);
            return Addr([word(0), word(1), word(2), word(3)]);
        }
        Addr::NONE
    }
}
