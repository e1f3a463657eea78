//! Tests of the handshake: what OpenSSH says passes, up to a key that is not pinned, and nothing else does.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const LINE: &[u8] = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n";
const KEY: &[u8] = b"a host key, as it is sent";

fn text(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
}

fn kexinit(methods: &str) -> Vec<u8> {
    let lists = [text(methods.as_bytes()), text(b"ssh-ed25519"), vec![0; 40]].concat();
    packet(&[&[KEXINIT][..], &[7; 16], &lists].concat())
}

fn reply(message: u8, key: &[u8]) -> Vec<u8> {
    packet(&[&[message][..], &text(key), &text(&[9; 32]), &text(&[9; 64])].concat())
}

fn pinned() -> Vec<String> {
    vec![fingerprint(KEY)]
}

/// What passes of what the two say, and the end of it.
fn talk(said: &[(Who, Vec<u8>)]) -> Result<(Handshake, Vec<u8>), Refused> {
    let (mut handshake, mut passed) = (Handshake::new(&pinned()), Vec::new());
    for (who, bytes) in said {
        let (free, judged) = handshake.take(*who, bytes);
        passed.extend_from_slice(&free);
        judged?;
    }
    Ok((handshake, passed))
}

fn greeted(agent: &str, server: &str) -> Vec<(Who, Vec<u8>)> {
    vec![
        (Who::Agent, [LINE, &kexinit(agent)].concat()),
        (Who::Server, [LINE, &kexinit(server)].concat()),
        (Who::Agent, packet(&[&[30][..], &text(&[5; 32])].concat())),
    ]
}

#[test]
fn a_fingerprint_is_what_ssh_keygen_prints() {
    // ssh-keygen -lf of this key, whose blob this is.
    let blob = "0000000b7373682d6564323535313900000020d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let blob: Vec<u8> =
        (0..blob.len()).step_by(2).map(|at| u8::from_str_radix(&blob[at..at + 2], 16).expect("hex")).collect();
    assert_eq!(fingerprint(&blob), "SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8");
}

#[test]
fn a_pinned_key_lets_everything_through_and_another_nothing() {
    let methods = "sntrup761x25519-sha512,curve25519-sha256,ext-info-c,kex-strict-c-v00@openssh.com";
    let mut said = greeted(methods, "curve25519-sha256,kex-strict-s-v00@openssh.com");
    let (handshake, passed) = talk(&said).expect("sound");
    assert_eq!((handshake.shown(), passed), (None, said.iter().flat_map(|(_, bytes)| bytes.clone()).collect()));
    said.push((Who::Server, [reply(REPLY, KEY), b"whatever follows".to_vec()].concat()));
    let (handshake, passed) = talk(&said).expect("sound");
    assert_eq!(handshake.shown(), Some(pinned()[0].as_str()));
    assert!(passed.ends_with(b"whatever follows"));
    said.pop();
    said.push((Who::Server, reply(REPLY, b"another key")));
    assert_eq!(talk(&said).expect_err("another key"), Refused::HostKey(fingerprint(b"another key")));
}

#[test]
fn with_group_exchange_the_reply_has_a_number_of_its_own() {
    let gex = "diffie-hellman-group-exchange-sha256";
    let mut said = greeted(gex, gex);
    said.push((Who::Server, packet(&[&[REPLY][..], &text(KEY), &text(&[2])].concat())));
    let (handshake, _) = talk(&said).expect("sound");
    assert_eq!(handshake.shown(), None, "a group is no key, whatever it looks like");
    said.push((Who::Agent, packet(&[&[32][..], &text(&[5; 256])].concat())));
    said.push((Who::Server, reply(GROUP_REPLY, KEY)));
    assert!(talk(&said).expect("sound").0.shown().is_some());
    // The number of the one is none of the other's.
    let mut said = greeted("curve25519-sha256", "curve25519-sha256");
    said.push((Who::Server, reply(GROUP_REPLY, KEY)));
    assert!(matches!(talk(&said), Err(Refused::NotSsh(Who::Server, _))));
}

#[test]
fn nothing_but_a_handshake_passes_before_the_key() {
    let not = |said: Vec<(Who, Vec<u8>)>, who: Who| {
        let refused = talk(&said).expect_err("refused");
        assert!(matches!(refused, Refused::NotSsh(by, _) if by == who), "{refused:?}");
    };
    let one = "curve25519-sha256";
    for line in [
        &b"SSH-1.99-x\r\n"[..],
        b"GET / HTTP/1.1\r\n",
        b"Exceeded MaxStartups\r\n",
        b"SSH-2.0-\0\r\n",
        b"\x16\x03\x01",
        b"SSH-2.0-a\rb\n",
    ] {
        not(vec![(Who::Agent, line.to_vec())], Who::Agent);
        not(vec![(Who::Server, line.to_vec())], Who::Server);
    }
    not(vec![(Who::Server, [b"SSH-2.0-", &[b'x'; 300][..]].concat())], Who::Server);
    let then = |who: Who, packet: Vec<u8>| {
        let mut said = greeted(one, one);
        said.push((who, packet));
        said
    };
    // NEWKEYS, IGNORE with something in it, a second KEXINIT, a service, and what is no packet.
    for payload in [&[21][..], &[2, 0, 0, 0, 1, 9], &[KEXINIT, 0], &[5, 0, 0, 0, 0], &[60], &[94, 1, 2, 3]] {
        not(then(Who::Agent, packet(payload)), Who::Agent);
        not(then(Who::Server, packet(payload)), Who::Server);
    }
    not(then(Who::Agent, packet(&[31])), Who::Agent);
    not(then(Who::Server, packet(&[30])), Who::Server);
    not(then(Who::Agent, [packet(&[30]), packet(&[30]), packet(&[30])].concat()), Who::Agent);
    for odd in [&[0, 0, 0, 0][..], &[0, 0, 0, 13], &[0xff; 4], &[0, 0, 0x88, 0xbc], b"GET "] {
        not(then(Who::Agent, odd.to_vec()), Who::Agent);
    }
    let mut short = packet(&[30]);
    short[4] = 200;
    not(then(Who::Agent, short.clone()), Who::Agent);
    short[4] = 3;
    not(then(Who::Agent, short), Who::Agent);
    // A method that nobody knows here, and none that both know.
    for (agent, server) in [("gss-group14-sha256-x", "gss-group14-sha256-x"), ("a", "b"), (one, "")] {
        let mut said = greeted(agent, server);
        said.push((Who::Server, reply(REPLY, KEY)));
        not(said, Who::Server);
    }
    let cut = packet(&[&[REPLY][..], &1000_u32.to_be_bytes(), KEY].concat());
    not(then(Who::Server, cut), Who::Server);
    not(vec![(Who::Server, [LINE, &reply(REPLY, KEY)].concat())], Who::Server);
}

#[test]
fn a_goodbye_may_be_said_at_any_time_once_and_in_short() {
    let long = "x".repeat(250);
    let bye = |reason: u8, text: &[u8], more: &[u8]| {
        packet(&[&[DISCONNECT, 0, 0, 0, reason], &self::text(text)[..], &self::text(b"en"), more].concat())
    };
    for who in [Who::Agent, Who::Server] {
        for said in [goodbye("too many"), bye(2, long.as_bytes(), b""), bye(11, b"", b"")] {
            let greeted = || vec![(who, LINE.to_vec())];
            let (_, passed) = talk(&[greeted(), vec![(who, said.clone())]].concat()).expect("a goodbye");
            assert!(passed.ends_with(&said));
            // Nothing is said after it, not even the same.
            for more in [&said[..], b"x"] {
                for pieces in [vec![(who, [&said[..], more].concat())], vec![(who, said.clone()), (who, more.to_vec())]]
                {
                    let refused = talk(&[greeted(), pieces].concat()).expect_err("more");
                    assert_eq!(refused, Refused::NotSsh(who, "it goes on after its goodbye"));
                }
            }
        }
        let too_long = "x".repeat(300);
        for none in [bye(2, too_long.as_bytes(), b""), bye(2, b"x", b"y"), bye(16, b"", b""), packet(&[DISCONNECT])] {
            let refused = talk(&[(who, [LINE, &none].concat())]).expect_err("no goodbye");
            assert!(matches!(refused, Refused::NotSsh(by, _) if by == who), "{refused:?}");
        }
    }
}

#[test]
fn what_comes_before_the_key_is_bounded() {
    let mut handshake = Handshake::new(&pinned());
    let _ = handshake.take(Who::Agent, &[LINE, &kexinit("curve25519-sha256")].concat());
    let packet = packet(&[&[30][..], &[0; 34_000]].concat());
    for _ in 0..3 {
        let (_, judged) = handshake.take(Who::Agent, &packet);
        judged.expect("as many as are needed");
    }
    let (passed, refused) = handshake.take(Who::Agent, &packet);
    assert!(passed.is_empty() && matches!(refused, Err(Refused::NotSsh(Who::Agent, _))));
}

#[test]
fn what_may_go_on_goes_whatever_comes_behind_it() {
    let mut handshake = Handshake::new(&pinned());
    let (passed, refused) = handshake.take(Who::Server, &[LINE, b"no packet"].concat());
    assert_eq!((&passed[..], refused.is_err(), handshake.has_greeted(Who::Server)), (LINE, true, true));
    let mut handshake = Handshake::new(&pinned());
    let (passed, refused) = handshake.take(Who::Server, b"Exceeded MaxStartups\r\n");
    assert_eq!((passed.len(), refused.is_err(), handshake.has_greeted(Who::Server)), (0, true, false));
}

proptest! {
    #[test]
    fn the_cut_changes_nothing(
        key in prop_oneof![Just(KEY.to_vec()), vec(any::<u8>(), 0..40)],
        bytes in vec(any::<u8>(), 0..60),
        message in prop_oneof![Just(REPLY), any::<u8>()],
        cuts in vec(0_usize..500, 0..6),
    ) {
        let said = [LINE, &kexinit("curve25519-sha256"), &reply(message, &key), &bytes].concat();
        let talk = |pieces: Vec<&[u8]>| {
            let mut handshake = Handshake::new(&pinned());
            let _ = handshake.take(Who::Agent, &[LINE, &kexinit("curve25519-sha256")].concat());
            let mut passed = Vec::new();
            for piece in pieces {
                let (free, judged) = handshake.take(Who::Server, piece);
                passed.extend_from_slice(&free);
                if judged.is_err() {
                    return (judged, None, passed);
                }
            }
            (Ok(()), handshake.shown().map(str::to_owned), passed)
        };
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(said.len())).collect();
        cuts.extend([0, said.len()]);
        cuts.sort_unstable();
        prop_assert_eq!(talk(cuts.windows(2).map(|cut| &said[cut[0]..cut[1]]).collect()), talk(vec![&said]));
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..200), who: bool) {
        let who = if who { Who::Agent } else { Who::Server };
        let mut handshake = Handshake::new(&pinned());
        let _ = handshake.take(who, &bytes);
        let mut handshake = Handshake::new(&pinned());
        let _ = handshake.take(who, &[LINE, &bytes].concat());
        let _ = handshake.take(who, &packet(&bytes));
    }
}
