//! Typed access to the pinned maps. Shared by the ledger, the proxy's origin look-up and the policy sync; every call is
//! one short syscall under a lock that is never held across an await.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Mutex;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf, SkStorage};
use pipelock_common::{
    Addr, Config, DenialCount, DenialKey, FlowRecord, FlowState, KernelReason, Listeners, Locality, OwnKey, PortSet,
    Settled, SockState, TupleKey, counter, tuple_slot,
};

use super::attach::KernelError;
use crate::flow::locked;

/// Names of the maps, as in pipelock-ebpf.
pub(super) const MAPS: [&str; 14] = [
    "CONFIG",
    "SEQUENCE",
    "SETTLED",
    "DENIALS",
    "REPORTED",
    "FLOWS",
    "TUPLES",
    "LISTENERS",
    "OWN_ADDRS",
    "PORTS",
    "COUNTERS",
    "EVENTS",
    "SOCKETS",
    "PEERS",
];

/// The maps of one attachment.
pub struct Maps {
    config: Mutex<Array<MapData, Config>>,
    sequence: Array<MapData, u64>,
    settled: Mutex<Array<MapData, Settled>>,
    denials: Mutex<HashMap<MapData, DenialKey, DenialCount>>,
    reported: Mutex<HashMap<MapData, DenialKey, u64>>,
    flows: Mutex<HashMap<MapData, u64, FlowRecord>>,
    tuples: Mutex<HashMap<MapData, TupleKey, u64>>,
    listeners: Mutex<HashMap<MapData, u64, Listeners>>,
    own: Mutex<HashMap<MapData, OwnKey, u32>>,
    ports: Mutex<Array<MapData, PortSet>>,
    counters: PerCpuArray<MapData, u64>,
    events: Mutex<Option<RingBuf<MapData>>>,
    sockets: Mutex<SkStorage<MapData, SockState>>,
}

/// What the kernel counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Flows by reason.
    pub by_reason: BTreeMap<KernelReason, u64>,
    /// Denials that were counted without a record of their own, by reason; the others are in `by_reason`.
    pub counted: BTreeMap<KernelReason, u64>,
    /// Number of the last flow: how many were opened.
    pub flows: u64,
    /// See [`counter::REPEATS`].
    pub repeats: u64,
    /// See [`counter::UNRECORDED`].
    pub unrecorded: u64,
    /// See [`counter::EVENTS_LOST`].
    pub events_lost: u64,
    /// See [`counter::PROBES`].
    pub probes: u64,
}

/// BPF_NOEXIST: only if there is none yet.
const BPF_NOEXIST: u64 = 1;

impl Counters {
    /// True when every numbered flow is counted under its reason: no program was in the middle of a decision when the last
    /// number was read. It was read last of these, so each of them is what it was at that moment.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.by_reason.values().sum::<u64>() + self.unrecorded == self.flows
    }
}

macro_rules! open {
    ($dir:expr, $name:literal, $variant:ident) => {
        MapData::from_pin($dir.join($name))
            .and_then(|data| Map::$variant(data).try_into())
            .map_err(|source| KernelError::Map { name: $name, source: Box::new(source) })?
    };
}

impl Maps {
    /// Opens the maps pinned in this folder.
    ///
    /// # Errors
    /// [`KernelError::Map`] naming the map that is absent or of another shape.
    pub fn open(dir: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            config: Mutex::new(open!(dir, "CONFIG", Array)),
            sequence: open!(dir, "SEQUENCE", Array),
            settled: Mutex::new(open!(dir, "SETTLED", Array)),
            denials: Mutex::new(open!(dir, "DENIALS", HashMap)),
            reported: Mutex::new(open!(dir, "REPORTED", HashMap)),
            flows: Mutex::new(open!(dir, "FLOWS", HashMap)),
            tuples: Mutex::new(open!(dir, "TUPLES", HashMap)),
            listeners: Mutex::new(open!(dir, "LISTENERS", HashMap)),
            own: Mutex::new(open!(dir, "OWN_ADDRS", HashMap)),
            ports: Mutex::new(open!(dir, "PORTS", Array)),
            counters: open!(dir, "COUNTERS", PerCpuArray),
            events: Mutex::new(Some(open!(dir, "EVENTS", RingBuf))),
            sockets: Mutex::new(open!(dir, "SOCKETS", SkStorage)),
        })
    }

    /// The event ring; it can be taken once.
    pub fn take_events(&self) -> Option<RingBuf<MapData>> {
        locked(&self.events).take()
    }

    /// The settings in force.
    ///
    /// # Errors
    /// The kernel's.
    pub fn config(&self) -> Result<Config, MapError> {
        locked(&self.config).get(&0, 0)
    }

    /// Puts the settings in force.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_config(&self, config: Config) -> Result<(), MapError> {
        locked(&self.config).set(0, config, 0)
    }

    /// Puts the ports in force: those of the rules, and the loopback ports that are open.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_ports(
        &self,
        rules: impl Iterator<Item = (u16, u16)>,
        loopback: impl Iterator<Item = u16>,
    ) -> Result<(), MapError> {
        let mut ports = locked(&self.ports);
        ports.set(0, port_set(rules), 0)?;
        ports.set(1, port_set(loopback.map(|port| (port, port))), 0)
    }

    /// Tells the programs where the proxy listens in a network namespace, and marks the sockets as the proxy's.
    ///
    /// # Errors
    /// The kernel's.
    pub fn serve(
        &self,
        netns: u64,
        listeners: Listeners,
        sockets: &[&dyn std::os::fd::AsRawFd],
    ) -> Result<(), MapError> {
        let mut storage = locked(&self.sockets);
        for socket in sockets {
            storage.insert(&socket.as_raw_fd(), SockState::proxy(), 0)?;
        }
        drop(storage);
        locked(&self.listeners).insert(netns, listeners, 0)
    }

    /// Marks a socket that was there before the programs as the agent's own. One that the programs know stays as it is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn adopt(&self, socket: &dyn std::os::fd::AsRawFd, state: SockState) -> Result<(), MapError> {
        match locked(&self.sockets).insert(&socket.as_raw_fd(), state, BPF_NOEXIST) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Replaces the host's addresses in a namespace, and its broadcasts.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_own(&self, netns: u64, addresses: &[(IpAddr, Locality)]) -> Result<(), MapError> {
        let mut own = locked(&self.own);
        let wanted: std::collections::HashMap<_, _> =
            addresses.iter().map(|(addr, what)| (OwnKey { netns, addr: to_addr(*addr) }, *what as u32)).collect();
        let stale: Vec<_> =
            own.keys().filter_map(Result::ok).filter(|key| key.netns == netns && !wanted.contains_key(key)).collect();
        for (key, what) in wanted {
            own.insert(key, what, 0)?;
        }
        for key in stale {
            let _ = own.remove(&key);
        }
        Ok(())
    }

    /// Consumes the record of who opened the connection with this local end that was redirected for this reason: a second
    /// look finds nothing, nor does one for a flow that has another end by now.
    pub fn take_origin(&self, netns: u64, peer: SocketAddr, reason: KernelReason) -> Option<FlowRecord> {
        let key = tuple_key(netns, peer, 6, tuple_slot::of(reason as u8));
        let mut tuples = locked(&self.tuples);
        let flow_id = tuples.get(&key, 0).ok()?;
        let _ = tuples.remove(&key);
        drop(tuples);
        self.flow(flow_id)
            .filter(|record| record.reason == reason as u8 && record.src == key.addr && record.src_port == key.port)
    }

    /// The flow of a datagram that came from this local end to the resolver's socket with this slot.
    pub fn udp_origin(&self, netns: u64, peer: SocketAddr, slot: usize) -> Option<FlowRecord> {
        let key = tuple_key(netns, peer, 17, u32::try_from(slot).ok()?);
        let flow_id = locked(&self.tuples).get(&key, 0).ok()?;
        self.flow(flow_id).filter(|record| record.reason == KernelReason::RedirectDns as u8)
    }

    /// Drops the tuple of a flow that nobody accepted, unless another flow has taken it since.
    pub fn forget_origin(&self, record: &FlowRecord) {
        if record.src_port == 0 {
            return;
        }
        let end = SocketAddr::new(from_addr(record.src), record.src_port);
        let key = tuple_key(record.sock.netns, end, if record.protocol == 17 { 17 } else { 6 }, record.tuple_slot());
        let mut tuples = locked(&self.tuples);
        if tuples.get(&key, 0).is_ok_and(|flow_id| flow_id == record.flow_id) {
            let _ = tuples.remove(&key);
        }
    }

    /// One flow; none when it is not there or still being filled in.
    pub fn flow(&self, flow_id: u64) -> Option<FlowRecord> {
        let flows = locked(&self.flows);
        steady(flow_id, || flows.get(&flow_id, 0).ok())
    }

    /// Every flow that waits for its receipt.
    pub fn pending(&self) -> Vec<FlowRecord> {
        let flows = locked(&self.flows);
        flows.keys().filter_map(Result::ok).filter_map(|id| steady(id, || flows.get(&id, 0).ok())).collect()
    }

    /// The numbers of the flows in the table.
    pub fn ids(&self) -> Vec<u64> {
        locked(&self.flows).keys().filter_map(Result::ok).collect()
    }

    /// Forgets a flow whose receipt is written.
    pub fn settle(&self, flow_id: u64) {
        let _ = locked(&self.flows).remove(&flow_id);
    }

    /// Tells the programs how much of the table was given back. A failure leaves the table fuller in their eyes than it is.
    pub fn give_back(&self, settled: Settled) {
        let _ = locked(&self.settled).set(0, settled, 0);
    }

    /// How much of the table was given back, as the programs know it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn settled(&self) -> Result<Settled, MapError> {
        locked(&self.settled).get(&0, 0)
    }

    /// Keeps a place for the denials of each reason that find none of their own. Before the programs run.
    ///
    /// # Errors
    /// The kernel's.
    pub fn keep_rest(&self) -> Result<(), MapError> {
        let mut denials = locked(&self.denials);
        for reason in KernelReason::ALL.iter().filter(|reason| reason.is_denial()) {
            let key = DenialKey::rest(*reason as u8);
            match denials.insert(key, DenialCount::default(), BPF_NOEXIST) {
                // Taken over: there since the beginning, and counting.
                Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// The denials that were counted without a record.
    pub fn denials(&self) -> Vec<(DenialKey, DenialCount)> {
        let denials = locked(&self.denials);
        denials.keys().filter_map(Result::ok).filter_map(|key| Some((key, denials.get(&key, 0).ok()?))).collect()
    }

    /// How many of these denials have a receipt.
    pub fn reported(&self) -> Vec<(DenialKey, u64)> {
        locked(&self.reported).iter().filter_map(Result::ok).collect()
    }

    /// Remembers how many denials have a receipt, for one that takes over. A failure would give them a second one then.
    pub fn set_reported(&self, key: DenialKey, count: u64) {
        let _ = locked(&self.reported).insert(key, count, 0);
    }

    /// What the kernel counted so far.
    ///
    /// # Errors
    /// The kernel's.
    pub fn counters(&self) -> Result<Counters, MapError> {
        let total = |slot: u32| -> Result<u64, MapError> { Ok(self.counters.get(&slot, 0)?.iter().sum()) };
        let mut by_reason = BTreeMap::new();
        let mut counted = BTreeMap::new();
        for reason in KernelReason::ALL {
            by_reason.insert(*reason, total(*reason as u32)?);
            counted.insert(*reason, total(counter::COUNTED + *reason as u32)?);
        }
        let unrecorded = total(counter::UNRECORDED)?;
        Ok(Counters {
            by_reason,
            counted,
            // After what became of them (see `is_settled`).
            flows: self.sequence.get(&0, 0)?,
            repeats: total(counter::REPEATS)?,
            unrecorded,
            events_lost: total(counter::EVENTS_LOST)?,
            probes: total(counter::PROBES)?,
        })
    }
}

/// How often a record that keeps changing is read; what was read last counts, as of a flow whose bytes go on.
const READS: usize = 8;

/// Reads a record until it is read alike twice. The kernel copies it without a lock while a program may be writing: one
/// reading can hold the new state and the bytes of before. The programs write the state last, so that what is read once the
/// state has been read is all there. None when the flow is not there or still being filled in.
fn steady(flow_id: u64, mut read: impl FnMut() -> Option<FlowRecord>) -> Option<FlowRecord> {
    let mut last = read()?;
    for _ in 1..READS {
        if last.state == FlowState::Filling as u8 {
            return None;
        }
        let next = read()?;
        if next == last {
            break;
        }
        last = next;
    }
    Some(last).filter(|record| record.state != FlowState::Filling as u8 && record.flow_id == flow_id)
}

fn port_set(ranges: impl Iterator<Item = (u16, u16)>) -> PortSet {
    let mut set = PortSet { words: [0; 1024] };
    for (first, last) in ranges {
        for port in first..=last {
            if let Some(word) = set.words.get_mut(usize::from(port >> 6)) {
                *word |= 1 << (port & 63);
            }
        }
    }
    set
}

/// The map form of an address.
#[must_use]
pub(super) fn to_addr(addr: IpAddr) -> Addr {
    match addr {
        IpAddr::V4(v4) => Addr::from_be4(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => Addr::from_octets(v6.octets()),
    }
}

/// The address of a map form, unmapped.
#[must_use]
pub fn from_addr(addr: Addr) -> IpAddr {
    IpAddr::from(addr.octets()).to_canonical()
}

fn tuple_key(netns: u64, peer: SocketAddr, protocol: u8, slot: u32) -> TupleKey {
    let ip = peer.ip().to_canonical();
    TupleKey { netns, addr: to_addr(ip), port: peer.port(), protocol, family: if ip.is_ipv4() { 4 } else { 6 }, slot }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_sets_hold_exactly_their_ranges() {
        let set = port_set([(80, 80), (65535, 65535), (8000, 8002)].into_iter());
        let held: Vec<u16> =
            (0..=u16::MAX).filter(|port| set.words[usize::from(port >> 6)] >> (port & 63) & 1 == 1).collect();
        assert_eq!(held, [80, 8000, 8001, 8002, 65535]);
    }

    #[test]
    fn a_record_that_is_being_written_is_read_again() {
        let open = FlowRecord { flow_id: 7, state: FlowState::Open as u8, ..FlowRecord::EMPTY };
        let closed = FlowRecord { state: FlowState::Closed as u8, closed_ns: 5, tx_bytes: 100, rx_bytes: 9, ..open };
        // The state of after, the bytes of before.
        let torn = FlowRecord { state: FlowState::Closed as u8, ..open };
        let unfilled = FlowRecord { flow_id: 0, ..open };
        let read = |records: &[Option<FlowRecord>]| {
            let mut records = records.iter().copied().chain(std::iter::repeat(records.last().copied().flatten()));
            steady(7, || records.next().flatten())
        };
        assert_eq!(read(&[Some(torn), Some(closed)]), Some(closed));
        assert_eq!(read(&[Some(unfilled), Some(open)]), Some(open));
        assert_eq!(read(&[Some(open), Some(torn), Some(closed)]), Some(closed));
        assert_eq!(read(&[Some(FlowRecord::EMPTY), Some(open)]), None, "it was being filled in");
        assert_eq!(read(&[Some(FlowRecord { flow_id: 8, ..closed })]), None, "another's by now");
        assert_eq!(read(&[Some(closed), None]), None, "removed");
        let mut bytes = 0..;
        let busy = || bytes.next().map(|tx_bytes| FlowRecord { tx_bytes, ..open });
        assert_eq!(steady(7, busy).map(|record| record.flow_id), Some(7), "a flow that goes on");
    }

    #[test]
    fn addresses_survive_the_map_form() {
        for text in ["127.0.0.1", "198.18.0.7", "::1", "2001:db8::5"] {
            let addr: IpAddr = text.parse().expect(text);
            assert_eq!(from_addr(to_addr(addr)), addr);
        }
    }
}
