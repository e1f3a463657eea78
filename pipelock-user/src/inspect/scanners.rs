//! The scanners of one policy: loaded in the background, once, and waited for by whoever needs them; `clients` has what they remember
//! of each client.
//!
//! Made by `app` beside the rules; asked by `proxy` for every request of a rule that scans. It promises that nothing is
//! read before they are there, and that a scanner that cannot be had is a denial.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use pipelock_scan::injection::OwnText;
use pipelock_scan::session::{Sessions, Ticket};
use pipelock_scan::{EngineError, Kind, RuleSet, Scanner, known};
use tokio::sync::watch;

use super::clients::{Clients, Engines, Placeholders};
use super::counts::COUNTS;
use super::head::SESSION;
use super::judging::has_no_end;
use super::terms::Side;
use crate::flow::{Reason, Verdict, locked};
use crate::policy::{FindingAction, Policy};

/// How long a request waits for scanners that are still being made. The first time on a machine the rules are compiled.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest file of secrets, in bytes.
const MOST_SECRETS: u64 = 16 << 20;

/// Why values that a policy names cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum InspectionError {
    /// A file of secrets.
    #[error("dlp.secrets_files: {}: {why}", path.display())]
    Secrets {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// How often a URL is read for what it still holds.
const MOST_ROUNDS: usize = 4;
/// Characters behind a dot that are another part of a secret.
const LONG: usize = 16;

/// A value that the scanners of tests were told of.
#[cfg(any(test, fuzzing))]
pub(crate) const KNOWN_FOR_TESTS: &str = "3f9c1e7ab25d480691c7e2f4a8b3d605";

/// The scanners, ready, with the memory of one client.
#[derive(Debug)]
pub struct Scanners {
    /// Secrets, and nothing else.
    pub(super) secrets: Scanner,
    /// What leaves: secrets, and instructions where the policy wants those looked for.
    pub(super) outbound: Scanner,
    /// What comes in: instructions, and secrets as well.
    pub(super) inbound: Scanner,
    /// The same for what is no text, or is read once more, or goes to nobody: nothing of it is taken for given.
    pub(super) foreign: Scanner,
    /// URLs of the client, and what they make together.
    pub(super) sessions: Sessions,
    /// What the client said lately; none of many.
    pub(super) own: Option<Arc<RwLock<OwnText>>>,
    /// What stands for its secrets.
    pub(super) placeholders: Placeholders,
    pub(super) started: Instant,
}

impl Scanners {
    /// For what comes on a side, once.
    pub(super) fn of(&self, side: Side) -> &Scanner {
        match side {
            Side::RequestHead | Side::Request => &self.outbound,
            Side::Response => &self.inbound,
            Side::Binary => &self.foreign,
        }
    }

    /// For what was read before, or does not reach the agent.
    pub(super) fn again(&self, side: Side) -> &Scanner {
        if side.is_outbound() { &self.outbound } else { &self.foreign }
    }

    /// A URL with placeholders for the secrets in it, each with what goes on behind it.
    #[must_use]
    pub fn without_secrets(&self, mut url: String) -> String {
        // What is left may be read in another way.
        for _ in 0..MOST_ROUNDS {
            let Ok(mut findings) = self.secrets.scan_url(&url) else { break };
            // Names of data that no rule knows stay: a hash in a path says where it went.
            findings.retain(|finding| !matches!(&*finding.class, "entropy" | "session"));
            if findings.is_empty() {
                return url;
            }
            for finding in &mut findings {
                let end = usize::try_from(finding.cover.end).unwrap_or(usize::MAX);
                finding.cover.end = if has_no_end(finding) { url.len() } else { end_of(url.as_bytes(), end) } as u64;
            }
            let text = pipelock_scan::redact_as(url.as_bytes(), &findings, |finding| self.placeholders.of(finding));
            url = String::from_utf8_lossy(&text).into_owned();
        }
        "<pipelock:unread>".to_owned()
    }

    /// Takes back values that are not sent in the end.
    pub(super) fn take_back(&self, tickets: &[Ticket]) {
        if !tickets.is_empty() {
            self.sessions.take_back(SESSION, self.now(), tickets);
        }
    }

    /// Milliseconds since they were made.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Where the value ends that goes on at a place of a URL, which may be where it is.
fn end_of(url: &[u8], at: usize) -> usize {
    let rest = url.get(at..).unwrap_or_default();
    let is_own = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+%".contains(byte);
    let run = |text: &[u8]| text.iter().take_while(|byte| is_own(byte)).count();
    // A name of a host ends with less.
    let goes_on = run(rest) > 0 || rest.first() == Some(&b'.') && run(&rest[1..]) >= LONG;
    let is_over = |byte: &u8| b"/?&;,#\"'<>".contains(byte) || byte.is_ascii_whitespace();
    let length = rest.iter().position(is_over).unwrap_or(rest.len());
    if goes_on { at + length } else { at }
}

impl Engines {
    fn load(known: known::Builder, reads_orders: bool, cache: Option<&Path>) -> Result<Self, String> {
        let rules = RuleSet::shipped().map_err(|error| error.to_string())?;
        Self::with(&rules, known, reads_orders, cache)
    }

    fn with(rules: &RuleSet, known: known::Builder, reads_orders: bool, cache: Option<&Path>) -> Result<Self, String> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| error.to_string())?;
        let failed = |error: EngineError| error.to_string();
        let secrets = builder(rules.only(Kind::Dlp), &key, known.clone(), cache).build().map_err(failed)?;
        let outbound = match reads_orders {
            true => builder(rules.clone(), &key, known, cache).build().map_err(failed)?,
            false => secrets.clone(),
        };
        let inbound = builder(rules.clone(), &key, known::Builder::new(), cache).build().map_err(failed)?;
        Ok(Self { secrets, outbound, inbound })
    }
}

fn builder(rules: RuleSet, key: &[u8; 32], known: known::Builder, cache: Option<&Path>) -> pipelock_scan::Builder {
    let builder = Scanner::builder(rules, key).known(known);
    match cache {
        Some(folder) => builder.cache(folder),
        None => builder,
    }
}

type State = Option<Result<Arc<Clients>, String>>;

/// The scanners of a policy, on their way.
pub struct Inspection {
    /// What they are made from; taken by the thread that makes them.
    known: Mutex<Option<known::Builder>>,
    reads_orders: bool,
    cache: Option<PathBuf>,
    is_started: AtomicBool,
    state: watch::Sender<State>,
}

impl Inspection {
    /// For the values that the policy names, the secrets of `environment`, and `secret`, a name and a value. Nothing is loaded yet.
    ///
    /// # Errors
    /// [`InspectionError::Secrets`].
    pub fn new(
        policy: &Policy,
        environment: &[(String, Vec<u8>)],
        secret: Option<(&str, &str)>,
        cache: Option<PathBuf>,
    ) -> Result<Self, InspectionError> {
        let mut known = known::Builder::new();
        if let Some((name, value)) = secret
            && let Err(why) = known.add(name, value.as_bytes(), known::Source::Secret)
        {
            tracing::warn!("{name} is not looked for: its value is {why}");
        }
        for path in &policy.dlp().secrets_files {
            let path = policy.locate(path);
            let text = read(&path).map_err(|why| InspectionError::Secrets { path: path.clone(), why })?;
            for (line, why) in known::from_file(&mut known, &path.display().to_string(), &text) {
                tracing::warn!("{}:{line} is not looked for: its value is {why}", path.display());
            }
        }
        let variables = environment.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        for (name, why) in known::from_environment(&mut known, variables) {
            tracing::info!("the variable {name} is not looked for: its value is {why}");
        }
        Ok(Self {
            known: Mutex::new(Some(known)),
            reads_orders: policy.dlp().instructions != FindingAction::Off,
            cache,
            is_started: AtomicBool::new(false),
            state: watch::Sender::new(None),
        })
    }

    /// Begins to load, on a thread of its own, unless that was begun before.
    pub fn start(self: &Arc<Self>) {
        if self.is_started.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::clone(self);
        let started = std::thread::Builder::new().name("scanners".into()).spawn(move || {
            // Whatever becomes of the thread, those who wait are told.
            let told = Told(&this.state);
            let known = locked(&this.known).take().unwrap_or_default();
            let loaded = Engines::load(known, this.reads_orders, this.cache.as_deref());
            let loaded = loaded.map(|engines| Arc::new(Clients::new(engines)));
            COUNTS.is_ready.set(usize::from(loaded.is_ok()));
            if let Err(why) = &loaded {
                tracing::error!("the scanner cannot be started, so what is to be scanned is not let through: {why}");
            }
            told.0.send_replace(Some(loaded));
        });
        if let Err(error) = started {
            tracing::error!(%error, "the thread that loads the scanner cannot be started");
            self.state.send_replace(Some(Err("no thread".to_owned())));
        }
    }

    /// The agent's scanners, if they are there; none while they are on their way.
    ///
    /// # Errors
    /// [`Reason::ScannerUnavailable`].
    #[must_use]
    pub fn now(&self) -> Option<Result<Arc<Scanners>, Verdict>> {
        let failed = |_: &String| Verdict::block(Reason::ScannerUnavailable, "the scanner could not be started");
        self.state.borrow().as_ref().map(|state| match state {
            Ok(clients) => Ok(clients.agent().clone()),
            Err(why) => Err(failed(why)),
        })
    }

    /// The scanners of the agent, or of another client by its name, as soon as they are there.
    ///
    /// # Errors
    /// [`Reason::ScannerUnavailable`].
    pub async fn ready(self: &Arc<Self>, client: Option<&str>) -> Result<Arc<Scanners>, Verdict> {
        self.when_ready(|clients| client.map_or_else(|| clients.agent().clone(), |name| clients.of(name))).await
    }

    /// The same, to take secrets out of what is told of a client: one that nothing was read of yet, and who may be anybody, takes
    /// nobody's room.
    ///
    /// # Errors
    /// As [`ready`](Self::ready).
    pub async fn known(self: &Arc<Self>, client: Option<&str>) -> Result<Arc<Scanners>, Verdict> {
        self.when_ready(|clients| client.map_or_else(|| clients.agent().clone(), |name| clients.known(name))).await
    }

    async fn when_ready(self: &Arc<Self>, of: impl Fn(&Clients) -> Arc<Scanners>) -> Result<Arc<Scanners>, Verdict> {
        if let Some(Ok(ready)) = &*self.state.borrow() {
            return Ok(of(ready));
        }
        self.start();
        let mut state = self.state.subscribe();
        let unavailable = |why: &str| Verdict::block(Reason::ScannerUnavailable, why);
        match tokio::time::timeout(PATIENCE, state.wait_for(Option::is_some)).await {
            Ok(Ok(state)) => match &*state {
                Some(Ok(ready)) => Ok(of(ready)),
                _ => Err(unavailable("the scanner could not be started")),
            },
            _ => Err(unavailable("the scanner is not ready yet")),
        }
    }

    /// Scanners that are on their way and never come.
    #[cfg(test)]
    pub(crate) fn never_for_tests() -> Arc<Self> {
        let (known, state) = (Mutex::default(), watch::Sender::new(None));
        Arc::new(Self { known, reads_orders: false, cache: None, is_started: AtomicBool::new(true), state })
    }

    /// Scanners that could not be loaded.
    #[cfg(test)]
    pub(crate) fn failed_for_tests() -> Arc<Self> {
        let state = watch::Sender::new(Some(Err("for tests".to_owned())));
        Arc::new(Self {
            known: Mutex::default(),
            reads_orders: false,
            cache: None,
            is_started: AtomicBool::new(true),
            state,
        })
    }

    /// Scanners of three rules that are there at once: enough to see what becomes of findings.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn for_tests() -> Arc<Self> {
        Self::of_test_rules(false)
    }

    /// The same for a policy that wants instructions looked for in what leaves.
    #[cfg(test)]
    pub(crate) fn for_tests_of_orders() -> Arc<Self> {
        Self::of_test_rules(true)
    }

    #[cfg(any(test, fuzzing))]
    fn of_test_rules(reads_orders: bool) -> Arc<Self> {
        // What is remembered is each test's own.
        let clients = Clients::new(Self::test_engines(reads_orders));
        Arc::new(Self {
            known: Mutex::default(),
            reads_orders,
            cache: None,
            is_started: AtomicBool::new(true),
            state: watch::Sender::new(Some(Ok(Arc::new(clients)))),
        })
    }

    /// Their engines.
    #[cfg(test)]
    pub(super) fn engines_for_tests() -> Engines {
        Self::test_engines(false)
    }

    #[cfg(any(test, fuzzing))]
    #[allow(clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    fn test_engines(reads_orders: bool) -> Engines {
        use std::sync::OnceLock;
        const RULES: &str = "rules: [\
            {id: token, name: token, kind: dlp, class: credential, severity: high, confidence: high, \
             keywords: [ghp_], pattern: 'ghp_[A-Za-z0-9]{36}'},\
            {id: header, name: header, kind: dlp, class: credential, severity: medium, confidence: medium, \
             pattern: 'Bearer [a-z]{20}'},\
            {id: account, name: account, kind: dlp, class: financial, severity: medium, confidence: high, \
             pattern: 'IBAN [0-9]{6}'},\
            {id: mail, name: mail, kind: dlp, class: personal, severity: low, confidence: high, \
             pattern: '[a-z]{3}@[a-z]{3}\\.example'},\
            {id: behind, name: behind, kind: dlp, class: credential, severity: high, confidence: high, secret: 1, \
             pattern: 'pw:([a-z0-9]{12})@host'},\
            {id: order, name: order, kind: injection, class: instruction_override, severity: high, \
             confidence: high, pattern: 'DISREGARD-ALL-THE-RULES'},\
            {id: words, name: words, kind: injection, class: instruction_override, severity: high, \
             confidence: high, pattern: 'FORGET ALL THE RULES'},\
            {id: image, name: image, kind: injection, class: exfiltration, severity: high, \
             confidence: high, pattern: '!\\[a\\]\\([a-z]{500,900}\\)'}]";
        static ENGINES: [OnceLock<Engines>; 2] = [const { OnceLock::new() }; 2];
        let engines = ENGINES[usize::from(reads_orders)].get_or_init(|| {
            let rules = RuleSet::read(&[("test", RULES)]).expect("rules").with_builtins();
            let mut known = known::Builder::new();
            known.add("KNOWN", KNOWN_FOR_TESTS.as_bytes(), known::Source::Secret).expect("a value");
            Engines::with(&rules, known, reads_orders, None).expect("engines")
        });
        engines.clone()
    }
}

/// Says that the scanners will not come, if nothing else was said before it is dropped.
struct Told<'a>(&'a watch::Sender<State>);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.send_if_modified(|state| {
            let is_silent = state.is_none();
            if is_silent {
                *state = Some(Err("the thread that loads them ended".to_owned()));
            }
            is_silent
        });
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MOST_SECRETS + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MOST_SECRETS {
        return Err(format!("more than {MOST_SECRETS} bytes"));
    }
    Ok(text)
}
