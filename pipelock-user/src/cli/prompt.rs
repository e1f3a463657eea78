//! Asks whoever sits at the terminal, for a policy that wants somebody asked.
//!
//! Given to the session by `run` and `attach`. It promises that only what is typed after the question counts, and only a whole word of it; that
//! the agent, which shares the terminal, is frozen meanwhile, so that it neither types the answer nor reads it nor paints over the
//! question; that the terminal's settings are afterwards as they were before; and that a Ctrl-C at the question reaches the command of
//! `run` and nobody else: whoever refuses a request does not end what holds the agent.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, Termios, tcflush, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};
use tokio::sync::oneshot;

use crate::flow::{Answer, Answering, Asker, Question};
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::spawn::{signals_passed_on, without_stop};

/// Undoes what was painted to hide the question or to say something else around it: attributes, character sets, margins, colours of
/// the palette, lines that do not wrap (ECMA-48 §8.3, DECSTR, DECSTBM, DECAWM; xterm's OSC 104, 110, 111). Then the last line.
const PLAIN: &str =
    "\x1b[!p\x1b[0m\x1b(B\x1b)B\x0f\x1b]104\x07\x1b]110\x07\x1b]111\x07\x1b[r\x1b[?25h\x1b[?7h\x1b[999;1H\r\n";
/// How long a question that is withdrawn may take to leave the terminal.
const LEAVES: Duration = Duration::from_secs(2);
/// Held by the one question that is on the terminal.
static SHOWN: Mutex<()> = Mutex::new(());

/// How often it is looked whether the question is withdrawn.
const LOOK: Duration = Duration::from_millis(200);
/// How long the agent may take to hold still.
const FREEZE: Duration = Duration::from_secs(2);
/// Bytes of an answer; more is none.
const MOST: usize = 64;

/// Who is asked about.
#[derive(Clone, Copy)]
pub(super) enum Agent<'a> {
    /// The command of `run`, which has the terminal when nobody is asked.
    Command(&'a Cgroup),
    /// Those in a cgroup that exists.
    Attached(&'a Cgroup),
    /// Clients of ours, wherever they are.
    Clients,
}

/// The terminal that pipelock was started at.
#[derive(Clone)]
pub(super) struct Terminal {
    /// Where the agent runs, if we have it.
    cgroup: Option<Arc<Cgroup>>,
    /// Whether Ctrl-C is a key of the agent's too.
    is_the_agents: bool,
}

impl Terminal {
    /// The terminal, if there is one.
    pub(super) fn of(agent: Agent<'_>) -> Option<Arc<dyn Asker>> {
        open().ok()?;
        let cgroup = match agent {
            Agent::Command(cgroup) | Agent::Attached(cgroup) => Some(Arc::new(Cgroup::open(cgroup.path()).ok()?)),
            Agent::Clients => None,
        };
        Some(Arc::new(Self { cgroup, is_the_agents: matches!(agent, Agent::Command(_)) }))
    }
}

/// What takes a question back.
struct Withdrawal {
    is_withdrawn: Arc<AtomicBool>,
    /// Signals that were passed on until the question was put: one more is for an agent that is to act on it, and not hold still.
    passed_on: u64,
}

impl Withdrawal {
    /// Of a question that is put now.
    fn of(is_withdrawn: Arc<AtomicBool>) -> Self {
        Self { is_withdrawn, passed_on: signals_passed_on() }
    }

    fn has_come(&self) -> bool {
        self.is_withdrawn.load(Ordering::Acquire) || signals_passed_on() != self.passed_on
    }
}

/// Waits until the terminal is as it was before it was asked at, for whoever ends.
pub(super) fn settle() {
    let due = Instant::now() + LEAVES;
    while SHOWN.try_lock().is_err_and(|error| matches!(error, TryLockError::WouldBlock)) && Instant::now() < due {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn open() -> io::Result<File> {
    File::options().read(true).write(true).open(Path::new("/dev/tty"))
}

/// Tells the thread that asks when nobody waits for its answer any more.
struct Withdraw(Arc<AtomicBool>);

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Asker for Terminal {
    fn name(&self) -> &'static str {
        "terminal"
    }

    fn ask<'a>(&'a self, question: &'a Question) -> Answering<'a> {
        let (terminal, question) = (self.clone(), question.clone());
        Box::pin(async move {
            let (tell, told) = oneshot::channel();
            let withdrawn = Withdraw(Arc::default());
            let withdrawal = Withdrawal::of(withdrawn.0.clone());
            let asking = move || {
                let mut tell = Some(tell);
                let mut say = |answer: io::Result<Answer>| {
                    if let Some(tell) = tell.take() {
                        let _ = tell.send(answer.map_err(|error| error.to_string()));
                    }
                };
                let answer = frozen(&terminal, &question, &withdrawal, || say(Ok(Answer::No)));
                say(answer);
            };
            std::thread::Builder::new().name("prompt".into()).spawn(asking).map_err(|error| error.to_string())?;
            let answer = told.await.map_err(|_| "the terminal went away".to_owned())?;
            drop(withdrawn);
            answer
        })
    }
}

/// Asks while the agent holds still. A Ctrl-C that is the agent's too is told as no before it goes there, whose client hangs up of it.
fn frozen(
    Terminal { cgroup, is_the_agents }: &Terminal,
    question: &Question,
    withdrawal: &Withdrawal,
    say_no: impl FnOnce(),
) -> io::Result<Answer> {
    let _shown = SHOWN.lock();
    if withdrawal.has_come() {
        // While it waited for its turn at the terminal: whoever ends may have looked at that already.
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the question was withdrawn"));
    }
    let mut terminal = open()?;
    let still = cgroup.as_deref().map(|cgroup| cgroup.freeze(FREEZE)).transpose().map_err(io::Error::other)?;
    let settings = Settings::take(&terminal)?;
    // Whatever was typed before was for the agent, or of it.
    tcflush(&terminal, FlushArg::TCIFLUSH)?;
    let answer = answer(&mut terminal, (question, still.is_some()), withdrawal);
    let _ = tcflush(&terminal, FlushArg::TCIFLUSH);
    match answer {
        Ok(Typed::Interrupt) if *is_the_agents => {}
        answer => return answer.map(Typed::answer),
    }
    // What Ctrl-C means otherwise, once all is as it was.
    drop(settings);
    drop(still);
    say_no();
    if let Ok(group) = tcgetpgrp(&terminal) {
        let _ = killpg(group, Signal::SIGINT);
    }
    Ok(Answer::No)
}

/// What was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Typed {
    Answer(Answer),
    /// Ctrl-C.
    Interrupt,
}

impl Typed {
    fn answer(self) -> Answer {
        match self {
            Self::Answer(answer) => answer,
            Self::Interrupt => Answer::No,
        }
    }
}

/// The terminal's own settings and its foreground group, put back when dropped.
struct Settings {
    terminal: File,
    before: Termios,
    group: Option<Pid>,
}

impl Settings {
    /// Bytes come as they are typed, unseen and without signals: Ctrl-C is read as any other key is, and [`frozen`] says what of it.
    fn take(terminal: &File) -> io::Result<Self> {
        let terminal = terminal.try_clone()?;
        let own = getpgrp();
        let group = tcgetpgrp(&terminal).ok().filter(|group| *group != own);
        if group.is_some() {
            without_stop(|| tcsetpgrp(&terminal, own))?;
        }
        let before = tcgetattr(&terminal)?;
        let mut during = before.clone();
        during.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        let taken = Self { terminal, before, group };
        without_stop(|| tcsetattr(&taken.terminal, SetArg::TCSANOW, &during))?;
        Ok(taken)
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        let _ = without_stop(|| tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before));
        if let Some(group) = self.group {
            let _ = without_stop(|| tcsetpgrp(&self.terminal, group));
        }
    }
}

fn answer(
    terminal: &mut File,
    (question, holds_still): (&Question, bool),
    withdrawal: &Withdrawal,
) -> io::Result<Typed> {
    let due = Instant::now() + question.timeout();
    terminal.write_all(words(question, holds_still).as_bytes())?;
    let mut typed: Vec<u8> = Vec::new();
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() || withdrawal.has_come() {
            terminal.write_all(b"\r\npipelock: no answer, which is no\r\n")?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody typed an answer"));
        }
        let timeout = PollTimeout::try_from(left.min(LOOK)).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut byte = [0];
        if terminal.read(&mut byte)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the terminal is closed"));
        }
        match byte {
            [b'\r' | b'\n'] => {
                terminal.write_all(b"\r\n")?;
                return Ok(Typed::Answer(match typed.as_slice() {
                    b"yes" => Answer::Yes,
                    b"always" => Answer::Always,
                    _ => Answer::No,
                }));
            }
            [3] => {
                terminal.write_all(b"^C\r\n")?;
                return Ok(Typed::Interrupt);
            }
            // Ctrl-D, Escape.
            [4 | 27] => {
                terminal.write_all(b"\r\n")?;
                return Ok(Typed::Answer(Answer::No));
            }
            [8 | 127] if typed.pop().is_some() => terminal.write_all(b"\x08 \x08")?,
            [byte @ b' '..=b'~'] if typed.len() < MOST => {
                typed.push(byte);
                terminal.write_all(&[byte])?;
            }
            _ => {}
        }
    }
}

/// The question. Its texts are safe to show. Clients of ours `hold still` for nobody: the request alone waits.
fn words(question: &Question, holds_still: bool) -> String {
    let Question { actor, pid, method, target, rule, findings, seconds, .. } = question;
    let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    let mut words = format!("{PLAIN}pipelock: {actor}{pid} wants: {method} {target}\r\n  rule: {rule}\r\n");
    for finding in findings {
        words.push_str(&format!("  found in it: {finding}\r\n"));
    }
    let always = match findings.is_empty() {
        true => format!(", or always for every {method} by this rule to this host in this run"),
        false => String::new(),
    };
    let waits = if holds_still { "the agent holds still" } else { "the request waits" };
    words
        .push_str(&format!("  {waits}. Type yes{always}; anything else is no, and so is nothing within {seconds} s: "));
    words
}

#[cfg(test)]
mod tests {
    use nix::pty::openpty;

    use super::*;

    fn question() -> Question {
        Question {
            id: "1".into(),
            policy: "p".into(),
            rule: "egress[0] a.test".into(),
            actor: "curl".into(),
            pid: Some(7),
            method: "POST".into(),
            target: "https://a.test/x".into(),
            findings: vec!["a token in header x".into()],
            seconds: 60,
        }
    }

    #[test]
    fn only_whole_words_are_yes() {
        for (typed, expected) in [
            (&b"yes\r"[..], Typed::Answer(Answer::Yes)),
            (b"yess\x7f\n", Typed::Answer(Answer::Yes)),
            (b"always\n", Typed::Answer(Answer::Always)),
            (b"y\n", Typed::Answer(Answer::No)),
            (b"YES\n", Typed::Answer(Answer::No)),
            (b" yes\n", Typed::Answer(Answer::No)),
            (b"\n", Typed::Answer(Answer::No)),
            (b"ye\x03s\n", Typed::Interrupt),
            (b"\x1b[Ayes\n", Typed::Answer(Answer::No)),
        ] {
            let pty = openpty(None, None).expect("a terminal");
            let (mut near, mut far) = (File::from(pty.slave), File::from(pty.master));
            let settings = during(&near);
            far.write_all(typed).expect("typed");
            assert_eq!(
                answer(&mut near, (&question(), true), &withdrawal(false)).expect("an answer"),
                expected,
                "{typed:?}"
            );
            let mut shown = [0; 2048];
            let count = far.read(&mut shown).expect("shown");
            let shown = String::from_utf8_lossy(&shown[..count]).into_owned();
            for part in
                ["curl (process 7)", "POST https://a.test/x", "egress[0] a.test", "a token in header x", "within 60 s"]
            {
                assert!(shown.contains(part), "{shown}");
            }
            drop(settings);
        }
    }

    #[test]
    fn who_waits_is_who_is_asked_about() {
        let waits = |holds_still| words(&question(), holds_still);
        assert!(waits(true).contains("  the agent holds still. Type yes;"), "{}", waits(true));
        assert!(waits(false).contains("  the request waits. Type yes;"), "{}", waits(false));
    }

    fn withdrawal(is_withdrawn: bool) -> Withdrawal {
        Withdrawal::of(Arc::new(AtomicBool::new(is_withdrawn)))
    }

    /// The settings alone: a test has no terminal of its own.
    fn during(terminal: &File) -> Settings {
        let before = tcgetattr(terminal).expect("settings");
        let mut during = before.clone();
        during.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(terminal, SetArg::TCSANOW, &during).expect("set");
        Settings { terminal: terminal.try_clone().expect("a copy"), before, group: None }
    }

    #[test]
    fn no_answer_is_none() {
        let pty = openpty(None, None).expect("a terminal");
        let (mut near, mut far) = (File::from(pty.slave), File::from(pty.master));
        // Not even where somebody has typed one.
        far.write_all(b"yes\n").expect("typed");
        let late = Question { seconds: 0, ..question() };
        assert!(answer(&mut near, (&late, true), &withdrawal(false)).is_err());
        assert!(answer(&mut near, (&question(), true), &withdrawal(true)).is_err(), "it was withdrawn");
        // A signal that was passed on after the question was put, before it was shown.
        let mut before = withdrawal(false);
        before.passed_on = before.passed_on.wrapping_sub(1);
        assert!(answer(&mut near, (&question(), true), &before).is_err(), "the agent is to act on the signal");
    }
}
