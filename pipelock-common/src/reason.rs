//! The kernel's reasons as one byte each; `pipelock::flow::Reason` gives them their words.

macro_rules! kernel_reasons {
    ($($(#[$meta:meta])* $variant:ident = $value:literal;)*) => {
        /// Why the kernel programs let a flow go on, redirected it or denied it.
        ///
        /// The value is part of the map layout: never renumber, only append.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum KernelReason { $($(#[$meta])* $variant = $value,)* }

        impl KernelReason {
            /// How many there are; values are 0 to COUNT - 1.
            pub const COUNT: u32 = [$($value,)*].len() as u32;
            /// Every reason, by value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason with this value, if there is one.
            #[must_use]
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

kernel_reasons! {
    /// TCP, sent to the transparent listener of the proxy.
    Redirect = 0;
    /// Port 53, sent to our resolver.
    RedirectDns = 1;
    /// Loopback or own address, and the socket listening there was created inside the cgroup.
    LoopbackOwn = 2;
    /// Loopback port that the policy opens.
    LoopbackAllowed = 3;
    /// A connection that a listener of the agent accepted: from this host, or, under `listen: any`, from outside.
    InboundAllowed = 4;
    /// TCP to a port no rule uses.
    PortDenied = 5;
    /// A socket of a family, type or protocol other than TCP or UDP over IPv4 or IPv6.
    SocketDenied = 6;
    /// UDP other than DNS.
    UdpDenied = 7;
    /// Loopback or own address, and the listener there is not the agent's.
    LoopbackDenied = 8;
    /// A bind to an address that is reachable from outside.
    ListenDenied = 9;
    /// A packet from outside for a socket of the agent.
    InboundDenied = 10;
    /// An outgoing packet that no flow accounts for.
    PacketDenied = 11;
    /// A network namespace for which the proxy has no listener.
    NetnsUnknown = 12;
    /// Nobody, or somebody else, listens where the proxy should.
    ProxyDown = 13;
    /// The flow could not be recorded.
    TableFull = 14;
    /// Multicast, broadcast, unspecified port and the like; joining a group.
    AddressDenied = 15;
    /// A socket that is bound to a device other than loopback.
    DeviceDenied = 16;
}

impl KernelReason {
    /// True when the program refused.
    #[must_use]
    pub const fn is_denial(self) -> bool {
        self as u8 >= Self::PortDenied as u8
    }
}
