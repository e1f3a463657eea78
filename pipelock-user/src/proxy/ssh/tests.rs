//! Tests of the gate on streams: who says what is cut off from whom, and what the client is told.

use super::handshake::packet;
use super::*;
use crate::policy::Policy;
use crate::proxy::meter::Budget;

const LINE: &[u8] = b"SSH-2.0-x\r\n";
const IDLE: Duration = Duration::from_secs(600);

fn gate(pin: &str) -> Gate {
    let text =
        format!("version: 1\negress: [{{destination: a.test, protocol: ssh, scan: false, host_keys: [\"{pin}\"]}}]\n");
    Gate::of(&Policy::parse(&text, "test").expect("a policy").rules()[0]).expect("a rule for SSH")
}

/// A server that shows this key, and what was said to it; what the client hears; and what came of it.
async fn shake(gate: &Gate, key: &[u8], client: &[u8], budget: Budget) -> (Result<bool, Verdict>, Vec<u8>, Vec<u8>) {
    let text = |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat();
    let kexinit = packet(&[&[20][..], &[0; 16], &text(b"curve25519-sha256")].concat());
    let reply = packet(&[&[31][..], &text(key)].concat());
    let (mut near, mut agent) = tokio::io::duplex(1 << 16);
    let (mut upstream, mut far) = tokio::io::duplex(1 << 16);
    near.write_all(&[client, &kexinit, &packet(&[30])].concat()).await.expect("room");
    let length = LINE.len() + kexinit.len() + packet(&[30]).len();
    let server = tokio::spawn(async move {
        let mut said = vec![0; length];
        let _ = far.write_all(&[LINE, &kexinit].concat()).await;
        // It answers what it was asked.
        if far.read_exact(&mut said).await.is_ok() {
            let _ = far.write_all(&[&reply[..], b"more"].concat()).await;
        }
        let _ = far.read_to_end(&mut said).await;
        said
    });
    let passed = gate.pass(&mut agent, &mut upstream, &Meter::new(budget), IDLE).await;
    drop((agent, upstream));
    let mut heard = Vec::new();
    let _ = near.read_to_end(&mut heard).await;
    (passed, heard, server.await.expect("no panic"))
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_client_hears_only_of_keys_that_are_pinned() {
    // SHA-256 of "key".
    let pin = "SHA256:LHDhK3oGRvkiefQnx7OOczTY5Tic/xZ6HcMOc/gmtoM";
    // Who speaks first is a matter of chance.
    for _ in 0..20 {
        let own = gate(pin);
        let (passed, heard, _) = shake(&own, b"key", LINE, Budget::default()).await;
        assert_eq!(passed.map_err(|verdict| verdict.detail), Ok(true));
        assert!(holds(&heard, b"key") && heard.ends_with(b"more"));
        assert!(own.would_pass(&[pin.to_owned()]) && !own.would_pass(&[]));
        let (passed, heard, _) = shake(&gate(pin), b"yek", LINE, Budget::default()).await;
        let denied = passed.expect_err("denied");
        assert_eq!((denied.reason, denied.is_block()), (Reason::HostKeyDenied, true));
        assert!(
            denied.detail.contains("SHA256:") && denied.detail.contains("host_keys of egress[0] a.test"),
            "{}",
            denied.detail
        );
        assert!(!holds(&heard, b"yek") && holds(&heard, b"pipelock: the server showed the host key SHA256:"));
    }
}

#[tokio::test]
async fn who_does_not_speak_ssh_is_cut_off() {
    let (passed, _, said) = shake(
        &gate("SHA256:LHDhK3oGRvkiefQnx7OOczTY5Tic/xZ6HcMOc/gmtoM"),
        b"yek",
        b"GET / HTTP/1.1\r\n\r\n",
        Budget::default(),
    )
    .await;
    assert!(passed.is_err() && !holds(&said, b"GET"), "{said:?}");
}

#[tokio::test]
async fn a_handshake_uses_the_budget_too() {
    let pin = "SHA256:LHDhK3oGRvkiefQnx7OOczTY5Tic/xZ6HcMOc/gmtoM";
    let budget = Budget { inn: Some(20), ..Budget::default() };
    let (passed, heard, _) = shake(&gate(pin), b"key", LINE, budget).await;
    assert_eq!(passed.map_err(|verdict| verdict.reason), Err(Reason::BudgetExceeded));
    assert!(heard.len() <= 20, "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stops_is_ended() {
    let (_near, mut agent) = tokio::io::duplex(64);
    let (mut upstream, _far) = tokio::io::duplex(64);
    let gate = gate("SHA256:LHDhK3oGRvkiefQnx7OOczTY5Tic/xZ6HcMOc/gmtoM");
    let passed = gate.pass(&mut agent, &mut upstream, &Meter::new(Budget::default()), IDLE).await;
    assert_eq!(passed.map_err(|verdict| verdict.reason), Err(Reason::IdleTimeout));
}

#[tokio::test]
async fn a_client_gets_a_packet_only_behind_the_line_of_a_server() {
    for (said, is_told) in [(&b"Exceeded MaxStartups\r\n"[..], false), (&[LINE, b"no packet"].concat()[..], true)] {
        let (mut near, mut agent) = tokio::io::duplex(1 << 16);
        let (mut upstream, mut far) = tokio::io::duplex(1 << 16);
        far.write_all(said).await.expect("room");
        let passed = gate("SHA256:LHDhK3oGRvkiefQnx7OOczTY5Tic/xZ6HcMOc/gmtoM")
            .pass(&mut agent, &mut upstream, &Meter::new(Budget::default()), IDLE)
            .await;
        assert_eq!(passed.expect_err("no SSH").reason, Reason::ProtocolUnknown);
        drop(agent);
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).await.expect("read");
        assert_eq!(heard.is_empty(), !is_told, "{heard:?}");
        assert!(!is_told || heard.starts_with(LINE) && holds(&heard, b"pipelock: the destination"));
    }
}
