//! Reads the commands at the beginning of a push (gitprotocol-pack(5), "Reference Update Request").
//!
//! Called by `http::pushing` with more of the body each time. It promises that the answer does not depend on how the body is
//! cut, that what git-receive-pack would read in another way is refused, and that nothing is read beyond [`MAX_BYTES`].

use crate::flow::Reason;
use crate::policy::unsound_ref;

/// Bytes that the commands of one push may have.
pub(in crate::proxy) const MAX_BYTES: usize = 1 << 20;
/// Commands of one push, `shallow` lines included.
pub(in crate::proxy) const MAX_COMMANDS: usize = 10_000;
/// Bytes of the name of a reference; what a file system takes.
const MAX_NAME: usize = 4096;
/// Characters of the number in front of a packet, which counts them too.
pub(in crate::proxy) const PREFIX: usize = 4;

/// A change of one reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Command {
    /// The reference, in full.
    pub(in crate::proxy) name: String,
    /// It is to be deleted.
    pub(in crate::proxy) is_delete: bool,
}

/// What a push asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Push {
    /// In order; none for the empty push by which git finds out whether it may send a large one.
    pub(in crate::proxy) commands: Vec<Command>,
    /// It wants to be told what became of each.
    pub(in crate::proxy) wants_report: bool,
    /// How long the packets may be in which it wants to be told, if it wants more than that: `side-band`.
    pub(in crate::proxy) side_band: Option<usize>,
    /// Options follow.
    pub(in crate::proxy) has_options: bool,
}

/// Why commands cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum Unread {
    /// No length of a packet, or one that stands for something else than lines here.
    #[error("the commands of the push are no packets of git's")]
    Packet,
    /// A line that is no command.
    #[error("the push holds a line that is no command")]
    Line,
    /// A name that git does not take.
    #[error("the push names a reference in a way that git does not take: {0}")]
    Name(&'static str),
    /// A push certificate.
    #[error("signed pushes cannot be read; push without --signed")]
    Signed,
    /// Over the limits.
    #[error("the push holds more than 10000 commands, or 1 MiB of them; push fewer references at a time")]
    TooMany,
    /// The body ended before the commands did.
    #[error("the push ended before its commands did")]
    Cut,
    /// Bytes after an empty list of commands.
    #[error("the push holds no command, and bytes behind that")]
    Behind,
}

impl Unread {
    /// The reason of its denial: what is sound and refused all the same is a matter of what may be pushed.
    pub(in crate::proxy) fn reason(self) -> Reason {
        match self {
            Self::Signed | Self::TooMany => Reason::GitDenied,
            Self::Packet | Self::Line | Self::Name(_) | Self::Cut | Self::Behind => Reason::RequestMalformed,
        }
    }
}

/// The reader.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Commands {
    /// Where the next packet begins.
    at: usize,
    lines: usize,
    push: Push,
    /// Characters that names of objects have, once one was seen: 40, or 64 with SHA-256.
    digits: Option<usize>,
}

impl Commands {
    /// Reads on in a body of which `all` has come so far; what is pushed, once it is known.
    ///
    /// # Errors
    /// [`Unread`]: the push is not to be sent.
    pub(in crate::proxy) fn read(&mut self, all: &[u8]) -> Result<Option<Push>, Unread> {
        loop {
            let rest = all.get(self.at..).unwrap_or_default();
            let Some((prefix, rest)) = rest.split_at_checked(PREFIX) else { return Ok(None) };
            let length = length(prefix).ok_or(Unread::Packet)?;
            if length == 0 {
                self.at += PREFIX;
                return Ok(Some(std::mem::take(&mut self.push)));
            }
            // Shorter ones are marks that do not belong here, or say nothing.
            let length = length.checked_sub(PREFIX).filter(|length| *length > 0).ok_or(Unread::Packet)?;
            if self.at + PREFIX + length > MAX_BYTES {
                return Err(Unread::TooMany);
            }
            let Some(line) = rest.get(..length) else { return Ok(None) };
            self.at += PREFIX + length;
            self.line(line.strip_suffix(b"\n").unwrap_or(line))?;
        }
    }

    /// Where what follows the commands begins.
    pub(in crate::proxy) fn end(&self) -> usize {
        self.at
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Unread> {
        self.lines += 1;
        if self.lines > MAX_COMMANDS {
            return Err(Unread::TooMany);
        }
        if let Some(object) = line.strip_prefix(b"shallow ") {
            return self.object(object).map(drop);
        }
        if line.starts_with(b"push-cert") {
            return Err(Unread::Signed);
        }
        // Only the first command says what the client can do.
        let command = match line.iter().position(|byte| *byte == 0) {
            Some(end) if self.push.commands.is_empty() => {
                let (command, rest) = line.split_at(end);
                self.capabilities(rest.get(1..).unwrap_or_default())?;
                command
            }
            _ => line,
        };
        let mut words = command.splitn(3, |byte| *byte == b' ');
        let (Some(old), Some(new), Some(name)) = (words.next(), words.next(), words.next()) else {
            return Err(Unread::Line);
        };
        self.object(old)?;
        let is_delete = self.object(new)?;
        if name.len() > MAX_NAME {
            return Err(Unread::Name("it is longer than 4096 bytes"));
        }
        let name = str::from_utf8(name).map_err(|_| Unread::Name("it is not UTF-8"))?;
        if let Some(why) = unsound_ref(name) {
            return Err(Unread::Name(why));
        }
        self.push.commands.push(Command { name: name.to_owned(), is_delete });
        Ok(())
    }

    /// The name of an object, of which all in a push have one length; whether it is the one that stands for none.
    fn object(&mut self, name: &[u8]) -> Result<bool, Unread> {
        let is_hex = name.iter().all(u8::is_ascii_hexdigit);
        let digits = *self.digits.get_or_insert(name.len());
        if !is_hex || digits != name.len() || !matches!(digits, 40 | 64) {
            return Err(Unread::Line);
        }
        Ok(name.iter().all(|byte| *byte == b'0'))
    }

    /// git ends a word at whatever blank there is, and takes one with a value for the same word.
    fn capabilities(&mut self, list: &[u8]) -> Result<(), Unread> {
        if !list.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Unread::Line);
        }
        for word in list.split(|byte| *byte == b' ') {
            match word.split(|byte| *byte == b'=').next().unwrap_or_default() {
                b"report-status" | b"report-status-v2" => self.push.wants_report = true,
                b"side-band-64k" => self.push.side_band = Some(65_520),
                b"side-band" => self.push.side_band = self.push.side_band.or(Some(1000)),
                b"push-options" => self.push.has_options = true,
                b"push-cert" => return Err(Unread::Line),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The length that four hexadecimal digits say.
fn length(prefix: &[u8]) -> Option<usize> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let length = prefix.iter().try_fold(0, |length, byte| Some(length * 16 + digit(byte)?))?;
    usize::try_from(length).ok()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef01234567";
    const NONE: &str = "0000000000000000000000000000000000000000";

    fn packet(line: &str) -> String {
        format!("{:04x}{line}", line.len() + PREFIX)
    }

    /// What comes of bytes that arrive in these pieces, and how many of them were read.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<(Push, usize)>, Unread> {
        let (mut commands, mut all) = (Commands::default(), Vec::new());
        for piece in pieces {
            all.extend_from_slice(piece);
            if let Some(push) = commands.read(&all)? {
                return Ok(Some((push, commands.end())));
            }
        }
        Ok(None)
    }

    fn of(lines: &[String]) -> Result<Option<(Push, usize)>, Unread> {
        let text: String = lines.iter().map(|line| packet(line)).collect();
        read([format!("{text}0000PACK").as_bytes()])
    }

    #[test]
    fn commands_are_read_as_git_writes_them() {
        let lines = [
            format!("shallow {OLD}"),
            format!("{OLD} {OLD} refs/heads/main\0 report-status side-band-64k object-format=sha1 agent=git/2.39.5"),
            format!("{NONE} {OLD} refs/tags/v1\n"),
            format!("{OLD} {NONE} refs/heads/ol\u{e9}"),
        ];
        let (push, end) = of(&lines).expect("sound").expect("whole");
        let said: Vec<(&str, bool)> = push.commands.iter().map(|one| (one.name.as_str(), one.is_delete)).collect();
        assert_eq!(said, [("refs/heads/main", false), ("refs/tags/v1", false), ("refs/heads/ol\u{e9}", true)]);
        assert!(push.wants_report && push.side_band == Some(65_520) && !push.has_options);
        assert_eq!(end, lines.iter().map(|line| line.len() + PREFIX).sum::<usize>() + PREFIX);
        assert_eq!(read([&b"0000"[..]]), Ok(Some((Push::default(), 4))), "the question before a large push");
        let long = "ab".repeat(32);
        let (push, _) = of(&[format!("{long} {long} refs/heads/x\0push-options")]).expect("sound").expect("whole");
        assert!(push.has_options && !push.wants_report && push.side_band.is_none());
    }

    #[test]
    fn what_git_would_read_in_another_way_is_refused() {
        let command = format!("{OLD} {OLD} refs/heads/a\0report-status");
        for (lines, why) in [
            (vec![format!("push-cert\0report-status")], Unread::Signed),
            (vec![format!("{OLD} {OLD}")], Unread::Line),
            (vec!["refs/heads/main".to_owned()], Unread::Line),
            (vec![format!("{OLD} {OLD}0 refs/heads/a")], Unread::Line),
            (vec![format!("{}g {OLD} refs/heads/a", &OLD[1..])], Unread::Line),
            (vec![command.clone(), format!("{0}{0} {0}{0} refs/heads/a", &OLD[..32])], Unread::Line),
            (vec![format!("{} {} refs/heads/a", &OLD[1..], &OLD[1..])], Unread::Line),
            (vec!["shallow x".to_owned()], Unread::Line),
            (vec![format!("{OLD} {OLD} refs/heads/a\0one\0two")], Unread::Line),
            (vec![format!("{OLD} {OLD} refs/heads/a\0report-status\tpush-options")], Unread::Line),
            (vec![format!("{OLD} {OLD} refs/heads/a\0report-status push-cert=x")], Unread::Line),
            (vec![command.clone(), format!("{OLD} {OLD} refs/heads/b\0quiet")], Unread::Name("")),
            (vec![format!("{OLD} {OLD} HEAD")], Unread::Name("")),
            (vec![format!("{OLD} {OLD} refs/heads/a\n\n")], Unread::Name("")),
            (vec![format!("{OLD} {OLD}  refs/heads/a")], Unread::Name("")),
            (vec![format!("{OLD} {OLD} refs/heads/a/../main")], Unread::Name("")),
            (vec![format!("{OLD} {OLD} refs/heads/a//b")], Unread::Name("")),
            (vec![format!("{OLD} {OLD} refs/heads/{}", "x".repeat(MAX_NAME))], Unread::Name("")),
        ] {
            let refused = of(&lines).expect_err("refused");
            assert_eq!(std::mem::discriminant(&refused), std::mem::discriminant(&why), "{lines:?}: {refused:?}");
        }
        let mut with_value = Commands::default();
        with_value.capabilities(b"report-status push-options=x").expect("words");
        assert!(with_value.push.has_options, "git takes it for the word without a value");
        let latin = [packet(&format!("{OLD} {OLD} refs/heads/x")).as_bytes(), b"0000"].concat();
        let latin: Vec<u8> = latin.iter().map(|byte| if *byte == b'x' { 0xe9 } else { *byte }).collect();
        assert_eq!(read([&latin[..]]), Err(Unread::Name("it is not UTF-8")));
        for bytes in ["0001", "0002", "0003", "0004", "00zz", "+004", "PACK", " 000"] {
            assert_eq!(read([bytes.as_bytes()]), Err(Unread::Packet), "{bytes}");
        }
        assert_eq!(read([&b"000"[..]]), Ok(None));
    }

    #[test]
    fn there_is_a_limit_to_commands_and_to_their_bytes() {
        let command = |number: usize| format!("{OLD} {OLD} refs/heads/{number}");
        let many: Vec<String> = (0..=MAX_COMMANDS).map(command).collect();
        assert_eq!(of(&many), Err(Unread::TooMany));
        assert_eq!(of(&many[1..]).expect("sound").expect("whole").0.commands.len(), MAX_COMMANDS);
        let long: Vec<String> = (0..300).map(|number| format!("{}{}", command(number), "x".repeat(4000))).collect();
        assert_eq!(of(&long), Err(Unread::TooMany));
    }

    proptest! {
        #[test]
        fn the_cut_changes_nothing(
            lines in vec(prop_oneof![
                Just(format!("{OLD} {OLD} refs/heads/a")),
                Just(format!("{OLD} {NONE} refs/tags/b\0report-status")),
                Just(format!("shallow {OLD}")),
                "[ -~]{1,90}",
            ], 0..6),
            bytes in vec(any::<u8>(), 0..40),
            cuts in vec(0_usize..200, 0..6),
        ) {
            let text: String = lines.iter().map(|line| packet(line)).collect();
            let all = [text.as_bytes(), b"0000", &bytes].concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(all.len())).collect();
            cuts.extend([0, all.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &all[cut[0]..cut[1]]);
            prop_assert_eq!(read(pieces), read([&all[..]]));
            prop_assert_eq!(read(bytes.chunks(1)), read([&bytes[..]]));
        }
    }
}
