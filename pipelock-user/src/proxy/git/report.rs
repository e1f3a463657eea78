//! Tells git no, in git's own words: a push that was refused is reported as a server reports one (gitprotocol-pack(5),
//! "Reporting Status"), since of an error over HTTP git shows nothing but the number there.
//!
//! Called by `http::pushing`. It promises an answer that git reads as "none of it was done", with the reason.

use super::push::Push;

/// What is said of each reference, where there is no room for more.
const SHORT: &str = "pipelock does not let this push through";
/// The channels of a side band.
const DATA: u8 = 1;
const PROGRESS: u8 = 2;

/// What such an answer is.
pub(in crate::proxy) const CONTENT_TYPE: &str = "application/x-git-receive-pack-result";

/// The answer to a push that wants a report: nothing was done, and why, a line each.
pub(in crate::proxy) fn refused(push: &Push, why: &[String]) -> Vec<u8> {
    let mut report = Vec::new();
    packet(&mut report, &[b"unpack ok\n"]);
    for command in &push.commands {
        packet(&mut report, &[b"ng ", command.name.as_bytes(), b" ", SHORT.as_bytes(), b"\n"]);
    }
    report.extend_from_slice(b"0000");
    let Some(longest) = push.side_band else { return report };
    let mut banded = Vec::new();
    let room = longest.saturating_sub(5).max(1);
    for line in why {
        for piece in format!("pipelock: {line}\n").as_bytes().chunks(room) {
            packet(&mut banded, &[&[PROGRESS], piece]);
        }
    }
    for piece in report.chunks(room) {
        packet(&mut banded, &[&[DATA], piece]);
    }
    banded.extend_from_slice(b"0000");
    banded
}

fn packet(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    out.extend_from_slice(format!("{length:04x}").as_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::git::push::Command;

    #[test]
    fn a_report_names_every_reference_and_the_reason() {
        let command = |name: &str| Command { name: name.into(), is_delete: false };
        let mut push = Push {
            commands: vec![command("refs/heads/main"), command("refs/tags/v1")],
            wants_report: true,
            ..Push::default()
        };
        let plain = refused(&push, &["no".into()]);
        let plain = String::from_utf8(plain).expect("text");
        assert!(plain.starts_with("000eunpack ok\n") && plain.ends_with("0000"), "{plain}");
        assert!(plain.contains("ng refs/heads/main ") && plain.contains("ng refs/tags/v1 "), "{plain}");
        push.side_band = Some(1000);
        let banded = refused(&push, &["no".into(), "x".repeat(2000)]);
        let (mut rest, mut told, mut data) = (&banded[..], Vec::new(), Vec::new());
        loop {
            let (length, after) = rest.split_at(4);
            let length = usize::from_str_radix(str::from_utf8(length).expect("hex"), 16).expect("hex");
            if length == 0 {
                assert!(after.is_empty());
                break;
            }
            assert!(length <= 1000);
            let (packet, after) = after.split_at(length - 4);
            if packet[0] == PROGRESS { &mut told } else { &mut data }.extend_from_slice(&packet[1..]);
            rest = after;
        }
        assert_eq!(String::from_utf8(data).expect("text"), plain);
        assert!(told.starts_with(b"pipelock: no\npipelock: xxx"));
    }
}
