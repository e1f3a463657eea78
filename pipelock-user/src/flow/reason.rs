//! The stable codes for why something was allowed or denied.
//!
//! The same word stands in the log, the metric label, the receipt, the 403 body and the verifier's report. Codes are
//! never renamed or reused; new ones are added at the end of their group.

use pipelock_common::KernelReason;

macro_rules! reasons {
    ($($(#[$meta:meta])* $variant:ident = $code:literal, $hint:literal;)*) => {
        /// Why a flow, request or query was allowed or denied.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$meta])* #[doc = concat!("`", $code, "`: ", $hint)] $variant,)* }

        impl Reason {
            /// Every reason, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code, in snake case.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// One sentence for the person or agent who meets it: what happened, or what to do.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)* }
            }

            /// The reason with this code, if there is one.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    PolicyAllow = "policy_allow", "A rule of the policy allows this.";
    LoopbackOwn = "loopback_own", "The agent talks to a service that it started itself.";
    LoopbackAllowed = "loopback_allowed", "The policy opens this loopback port.";
    DnsAnswered = "dns_answered", "The policy allows this name; it was answered from the resolver.";
    Inbound = "inbound_allowed", "The agent accepted this connection: from this host, or, where the policy says listen: any, from outside.";

    PortDenied = "port_denied", "No rule of the policy uses this port. Add the port to a rule, or use 80 or 443.";
    SocketDenied = "socket_denied", "Only TCP and UDP over IPv4 and IPv6 are open to the agent; raw, ICMP, MPTCP, SCTP and UDP-Lite are not.";
    UdpDenied = "udp_denied", "UDP leaves only as DNS to the built-in resolver. HTTP/3 clients fall back to TCP.";
    LoopbackDenied = "loopback_denied", "This loopback port belongs to the host, not to the agent. Name it under loopback.allow to open it.";
    ListenDenied = "listen_denied", "The agent may listen on loopback only. Set listen: any to let it accept connections.";
    InboundDenied = "inbound_denied", "A packet from outside for a listener of the agent was dropped. Set listen: any to accept connections.";
    PacketDenied = "packet_denied", "A packet that no flow accounts for was dropped by the backstop.";
    NetnsUnknown = "netns_unknown", "The socket is in a network namespace that pipelock does not serve.";
    ProxyDown = "proxy_down", "The proxy is not running, so nothing may leave. Start pipelock attach again.";
    TableFull = "table_full", "A kernel table is full; the flow was denied rather than left unrecorded.";
    AddressDenied = "address_denied", "Multicast, broadcast and other special addresses are never reached, nor is the next hop (upstream.proxy), nor an address that deny names.";
    DeviceDenied = "device_denied", "The socket is bound to a network device (SO_BINDTODEVICE), past which the proxy cannot be reached. Do not bind it.";

    NoOrigin = "no_origin", "The connection does not come from a flow that the kernel recorded.";
    HostDenied = "host_denied", "No rule of the policy names this destination, or deny does. Add it under egress, or take it out of deny.";
    MethodDenied = "method_denied", "The rule for this destination does not list this method.";
    PathDenied = "path_denied", "The rule for this destination does not list this path.";
    NameMismatch = "name_mismatch", "The names in the request, the connection and DNS disagree.";
    NameMissing = "name_missing", "The connection carries no name that a rule could be found by. Have the client send one (SNI in TLS, Host in HTTP), or name the address in a rule.";
    InspectionUnavailable = "inspection_unavailable", "The rule wants this traffic read (scan, methods or paths), and it cannot be; it is not let through unread.";
    Misdirected = "misdirected", "The request names another host than the TLS connection was opened for. Open a connection of its own for it.";
    ClientPinned = "client_pinned", "The client does not accept pipelock's certificate: it pins the server's, or does not read the trust it was given. Run pipelock doctor; to pass the destination unread, set protocol: tls and scan: false on its rule.";
    TlsFailed = "tls_failed", "The TLS handshake with the client failed.";
    CertificateInvalid = "certificate_invalid", "The destination's certificate could not be verified, so nothing was sent. The detail says what is wrong with it: that is for whoever runs the destination to mend, but for a root of one's own, which tls.extra_roots names.";
    ProtocolUnknown = "protocol_unknown", "The connection does not speak what the rule says, or neither HTTP nor TLS. Name its protocol in the rule; protocol: ssh with host_keys is for SSH, and protocol: tcp with scan: false passes any bytes unread.";
    DetectTimeout = "detect_timeout", "The client did not say what it speaks within limits.detect_timeout_seconds.";
    RequestMalformed = "request_malformed", "The request cannot be read unambiguously.";
    UpgradeDenied = "upgrade_denied", "Protocol upgrades are not passed on this route.";
    EchDenied = "ech_denied", "Encrypted ClientHello may hide the name that the policy decides by. Turn it off in the client (Chromium: --disable-features=EncryptedClientHello; Firefox: network.dns.echconfig.enabled=false and security.tls.ech.grease_probability=0).";
    SsrfDenied = "ssrf_denied", "The name leads to a private, loopback, link-local or metadata address. Name the network under ssrf.allow to reach it.";
    ResolveFailed = "resolve_failed", "The name could not be resolved.";
    DialFailed = "dial_failed", "The destination could not be reached.";
    UpstreamFailed = "upstream_failed", "The destination broke off or answered with something that is not HTTP.";
    HopFailed = "hop_failed", "The next hop (upstream.proxy of the policy) could not be reached, refused, or could not reach the destination; the detail has what it said. That is for whoever runs it to change.";
    DnsDenied = "dns_denied", "No rule of the policy names this host, or deny does, so it is not resolved.";
    DnsMalformed = "dns_malformed", "The DNS message cannot be read.";
    DnsExhausted = "dns_exhausted", "Too many different names were asked for.";
    BudgetExceeded = "budget_exceeded", "The byte or time budget of the rule, or a rate of bytes (rates), is used up. Retry-After says when a rate has room again.";
    LimitExceeded = "limit_exceeded", "Too many connections, or requests (rates), or headers over the limits. Retry-After says when a rate has room again.";
    RequestTimeout = "request_timeout", "The request head did not arrive within limits.request_timeout_seconds.";
    IdleTimeout = "idle_timeout", "No byte moved either way for limits.idle_timeout_seconds.";
    PolicyChanged = "policy_changed", "The connection was open when a new policy came that does not allow it.";
    RecorderUnavailable = "recorder_unavailable", "Evidence could not be written, so nothing may leave.";
    ClientAborted = "client_aborted", "The client hung up before a decision was due.";
    ProxyLost = "proxy_lost", "The proxy that handled this flow ended before it could report.";
    DlpMatch = "dlp_match", "The scanner found a secret in what was to leave. Take it out; if it is meant for this destination as a header, list its rule under allow_secrets of the destination's rule.";
    InjectionMatch = "injection_match", "The scanner found instructions to an agent, or what response.secrets stops, in what the destination sent, or instructions in what was to leave (dlp.instructions); it was not passed on.";
    ContentUnreadable = "content_unreadable", "The content is encoded in a way that cannot be read, or holds more than can be unpacked, and the rule wants it read. Ask for gzip, deflate, br, zstd or no encoding, or set scan: false.";
    ScannerUnavailable = "scanner_unavailable", "The scanner could not be started, and what the rule wants read is not let through unread. The log says why.";
    AskDenied = "ask_denied", "The policy wants somebody asked about this (ask), and nobody said yes: the detail says who was asked, and what came of it.";
    IdentityRequired = "identity_required", "The proxy serves those whose token it knows. Send Proxy-Authorization (Basic NAME:TOKEN, or Bearer TOKEN); whoever started it has the tokens.";
    GitDenied = "git_denied", "What the rule says under git does not allow this; the detail names what to add to git.fetch or git.push.";
    HostKeyDenied = "host_key_denied", "The destination showed an SSH host key that the rule does not pin; its answer was not passed on. The detail has the fingerprint; add it to host_keys only if whoever runs the server says that it is theirs.";
    ProxyStopped = "proxy_stopped", "pipelock was stopped while this was under way. Ask again when it runs again.";
    Internal = "internal_error", "A defect in pipelock; the flow was denied.";
}

impl Reason {
    /// What the kernel's reason is called here.
    #[must_use]
    pub const fn of_kernel(reason: KernelReason) -> Self {
        match reason {
            KernelReason::Redirect => Self::PolicyAllow,
            KernelReason::RedirectDns => Self::DnsAnswered,
            KernelReason::LoopbackOwn => Self::LoopbackOwn,
            KernelReason::LoopbackAllowed => Self::LoopbackAllowed,
            KernelReason::InboundAllowed => Self::Inbound,
            KernelReason::PortDenied => Self::PortDenied,
            KernelReason::SocketDenied => Self::SocketDenied,
            KernelReason::UdpDenied => Self::UdpDenied,
            KernelReason::LoopbackDenied => Self::LoopbackDenied,
            KernelReason::ListenDenied => Self::ListenDenied,
            KernelReason::InboundDenied => Self::InboundDenied,
            KernelReason::PacketDenied => Self::PacketDenied,
            KernelReason::NetnsUnknown => Self::NetnsUnknown,
            KernelReason::ProxyDown => Self::ProxyDown,
            KernelReason::TableFull => Self::TableFull,
            KernelReason::AddressDenied => Self::AddressDenied,
            KernelReason::DeviceDenied => Self::DeviceDenied,
        }
    }
}

impl From<KernelReason> for Reason {
    fn from(reason: KernelReason) -> Self {
        Self::of_kernel(reason)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_found_again() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
            assert!(reason.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }
}
