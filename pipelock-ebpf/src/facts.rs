//! Answers the questions of [`pipelock_common::decide`] with helper calls.

use core::ffi::c_void;

use crate::emit::UDP;
use crate::maps::{LISTENERS, OWN_ADDRS, PORTS_OF_LOOPBACK, PORTS_OF_RULES, has_port, sock_state};
use aya_ebpf::bindings::{
    bpf_sock, bpf_sock_addr, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release};
use pipelock_common::{Addr, Facts, Listeners, Locality, OwnKey, Receiver, UDP_PEERS, sock_flag};

/// BPF_F_CURRENT_NETNS: look in the namespace of the context's socket.
const CURRENT_NETNS: u64 = u64::MAX;

/// The facts as seen by a sock_addr program.
pub struct KernelFacts {
    /// The program's context.
    pub ctx: *mut bpf_sock_addr,
    /// Cookie of the socket's network namespace.
    pub netns: u64,
    /// The destination is IPv4, so the IPv4 listeners count.
    pub is_v4: bool,
    /// Which of the resolver's UDP sockets a datagram goes to; 0 for TCP.
    pub slot: u32,
}

impl KernelFacts {
    /// For this context, namespace and destination.
    #[inline(always)]
    pub fn new(ctx: *mut bpf_sock_addr, netns: u64, dst: Addr, slot: u32) -> Self {
        Self { ctx, netns, is_v4: dst.is_v4(), slot }
    }
}

/// The flags of the socket that would receive there; none when there is none of ours. A function of its own to the kernel,
/// so that the verifier walks it once and not on every way that leads to the question.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_receiver(ctx: *mut bpf_sock_addr, addr: *const Addr, port: u32, protocol: u32) -> u32 {
    if addr.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier sees to it that it is whole. The context is the program's.
    let (addr, own) = unsafe { (*addr, (*ctx).__bindgen_anon_1.sk) };
    if own.is_null() {
        return 0;
    }
    let mut tuple = lookup_tuple(&Addr::NONE, 0, &addr, port as u16);
    if protocol == UDP {
        // A UDP socket that is connected takes datagrams from its peer only: without where this one comes from, the
        // lookup would miss it, and an agent's server could not answer its own clients.
        // SAFETY: the socket of the context, not null.
        unsafe { note_source(&mut tuple, own, addr) };
    }
    // SAFETY: the program's context.
    unsafe { receiver_of(ctx.cast(), &mut tuple, addr.is_v4(), protocol) }.0
}

/// What a lookup takes for a packet between these ends, whose ports are in host order.
#[inline(always)]
pub fn lookup_tuple(src: &Addr, sport: u16, dst: &Addr, dport: u16) -> bpf_sock_tuple {
    let (sport, dport) = (sport.to_be(), dport.to_be());
    let mut tuple = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv6: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 { saddr: src.0, daddr: dst.0, sport, dport },
        },
    };
    if dst.is_v4() {
        tuple.__bindgen_anon_1.ipv4 =
            bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 { saddr: src.0[3], daddr: dst.0[3], sport, dport };
    }
    tuple
}

/// The flags of the socket that receives what is sent along `tuple`, none when it is none of ours, and its state
/// (`BPF_TCP_*`; 0 when there is no socket, or only what is left of one in TIME-WAIT).
///
/// # Safety
/// `ctx` is the context of the running program, and its socket has a network namespace.
#[inline(always)]
pub unsafe fn receiver_of(ctx: *mut c_void, tuple: &mut bpf_sock_tuple, is_v4: bool, protocol: u32) -> (u32, u32) {
    let size = if is_v4 { 12 } else { 36 };
    let tuple = core::ptr::from_mut(tuple);
    // SAFETY: all of the tuple is initialised; the returned socket is released below.
    let sk: *mut bpf_sock = unsafe {
        if protocol == UDP {
            bpf_sk_lookup_udp(ctx, tuple, size, CURRENT_NETNS, 0)
        } else {
            bpf_sk_lookup_tcp(ctx, tuple, size, CURRENT_NETNS, 0)
        }
    };
    if sk.is_null() {
        return (0, 0);
    }
    // SAFETY: not null, and a full socket, as the lookup promises.
    let flags = match unsafe { sock_state(sk) } {
        // SAFETY: storage of a socket that we hold.
        Some(state) => unsafe { (*state).flags },
        None => 0,
    };
    // SAFETY: held until the next line, which releases it once.
    unsafe {
        let state = (*sk).state;
        bpf_sk_release(sk.cast());
        (flags, state)
    }
}

/// Fills in where a datagram to `dst` would come from: a socket bound to no address sends from the
/// address that the route gives it, which on this host is `dst` itself.
///
/// # Safety
/// `sk` is the socket of the running program's context and not null.
#[inline(always)]
unsafe fn note_source(tuple: &mut bpf_sock_tuple, sk: *mut bpf_sock, dst: Addr) {
    // SAFETY: the caller's promise; each word is read on its own. The union was filled for this family before.
    unsafe {
        let sport = (core::ptr::read_volatile(&raw const (*sk).src_port) as u16).to_be();
        if dst.is_v4() {
            let bound = core::ptr::read_volatile(&raw const (*sk).src_ip4);
            // All of 127.0.0.0/8 is sent to from 127.0.0.1.
            let is_loopback = u32::from_be(dst.0[3]) >> 24 == 127;
            let routed = if is_loopback { Addr::LOOPBACK_V4.0[3] } else { dst.0[3] };
            tuple.__bindgen_anon_1.ipv4.saddr = if bound == 0 { routed } else { bound };
            tuple.__bindgen_anon_1.ipv4.sport = sport;
        } else {
            let a = core::ptr::read_volatile(&raw const (*sk).src_ip6[0]);
            let b = core::ptr::read_volatile(&raw const (*sk).src_ip6[1]);
            let c = core::ptr::read_volatile(&raw const (*sk).src_ip6[2]);
            let d = core::ptr::read_volatile(&raw const (*sk).src_ip6[3]);
            let bound = [a, b, c, d];
            tuple.__bindgen_anon_1.ipv6.saddr = if a | b | c | d == 0 { dst.0 } else { bound };
            tuple.__bindgen_anon_1.ipv6.sport = sport;
        }
    }
}

/// Where in [`Listeners`] a port lies, which is nothing but ports.
const TCP4: u32 = 0;
const TCP6: u32 = 1;
const DNS4: u32 = 2;
const DNS6: u32 = DNS4 + UDP_PEERS as u32;
const LISTENERS_PORTS: u32 = DNS6 + UDP_PEERS as u32;
const _: () = assert!(LISTENERS_PORTS as usize * size_of::<u16>() == size_of::<Listeners>());

/// What [`pl_listener`] adds to a port: the proxy listens in that namespace.
const SERVED: u32 = 1 << 16;

/// The port of a listener of the proxy, plus [`SERVED`]; 0 when it has none in that namespace. Apart for the reason that
/// [`pl_receiver`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_listener(netns: u64, which: u32) -> u32 {
    if which >= LISTENERS_PORTS {
        return 0;
    }
    // SAFETY: read at once.
    let Some(listeners) = (unsafe { LISTENERS.get(netns) }) else { return 0 };
    // SAFETY: within the value, as was just looked at; all of it is ports.
    let port = unsafe { core::ptr::from_ref(listeners).cast::<u16>().add(which as usize).read() };
    SERVED | u32::from(port)
}

impl Facts for KernelFacts {
    #[inline(always)]
    fn locality(&self, addr: Addr) -> Locality {
        // SAFETY: read at once.
        match unsafe { OWN_ADDRS.get(OwnKey { netns: self.netns, addr }) } {
            None => Locality::Elsewhere,
            Some(found) if *found == Locality::Own as u32 => Locality::Own,
            Some(_) => Locality::Broadcast,
        }
    }

    #[inline(always)]
    fn receiver(&self, addr: Addr, port: u16, protocol: u32) -> Receiver {
        let flags = pl_receiver(self.ctx, &addr, u32::from(port), protocol);
        if flags & sock_flag::PROXY != 0 {
            Receiver::Proxy
        } else if flags & sock_flag::AGENT != 0 {
            Receiver::Agent
        } else {
            Receiver::Other
        }
    }

    #[inline(always)]
    fn is_loopback_port_open(&self, port: u16) -> bool {
        has_port(PORTS_OF_LOOPBACK, port)
    }

    #[inline(always)]
    fn is_port_used(&self, port: u16) -> bool {
        has_port(PORTS_OF_RULES, port)
    }

    #[inline(always)]
    fn redirect_to(&self, dns: bool) -> Option<(Addr, u16)> {
        let which = match (self.is_v4, dns) {
            (true, false) => TCP4,
            (false, false) => TCP6,
            (true, true) => DNS4 + self.slot,
            (false, true) => DNS6 + self.slot,
        };
        let found = pl_listener(self.netns, which);
        let addr = if self.is_v4 { Addr::LOOPBACK_V4 } else { Addr::LOOPBACK_V6 };
        if found & SERVED == 0 { None } else { Some((addr, found as u16)) }
    }
}
