//! `pipelock run` without a command: the proxy for clients that are told to use it.
//!
//! It promises that addresses and privileges are settled before a byte of anybody is read, and that a policy or a file of tokens with
//! mistakes changes nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pipelock_receipt::SigningKey;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::prompt::{self, Agent, Terminal};
use super::reload::{read, reload_signal};
use super::run::Args;
use super::{Failure, files, output};
use crate::app::{Alone, Bound, Doors, count_reload, runtime};
use crate::policy::Policy;
use crate::proxy::{Gate, Identities, Upstream};
use crate::sandbox::caps::{Cap, drop_after_load};
use crate::sandbox::spawn::is_ignored;

/// How often is looked whether the terminal is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How long after a terminal was closed its shell may take to hang up.
const CLOSES: Duration = Duration::from_secs(5);
/// Longest file of tokens, in bytes.
const MOST_TOKENS: u64 = 1 << 20;

/// Serves until SIGINT, SIGTERM or the end of the terminal.
pub(super) fn serve(policy: Policy, key: SigningKey, args: &Args) -> Result<u8, Failure> {
    let (gate, tokens) = match &args.tokens {
        Some(file) => {
            let (known, tokens) = identities(file)?;
            (Gate::for_those(known), tokens)
        }
        None if args.listen.ip().is_loopback() => (Gate::open(), Tokens::default()),
        None => {
            return Err(Failure::usage(format!(
                "{} is not a loopback address, and others than this host could use the proxy; say who may with --tokens FILE",
                args.listen
            )));
        }
    };
    let gate = Arc::new(gate);
    let listen =
        |address| Bound::at(address).map_err(|error| Failure::usage(format!("listening on {address}: {error}")));
    let reverse = match &args.reverse_upstream {
        None => None,
        Some(url) => {
            let upstream =
                Upstream::parse(url).map_err(|why| Failure::usage(format!("--reverse-upstream {url}: {why}")))?;
            if policy.find(upstream.host(), upstream.port()).is_err() {
                output::note(&format!("warning: no rule of the policy lets anything through to {url}"));
            }
            if !args.reverse_listen.ip().is_loopback() {
                output::note(&format!(
                    "warning: whoever reaches {} is served as a client of {url}, without a token and in the clear",
                    args.reverse_listen
                ));
            }
            Some((listen(args.reverse_listen)?, upstream))
        }
    };
    let bound = listen(args.listen)?;
    let file = policy.file().map(Path::to_owned);
    let evidence = args.session.evidence("proxy")?;
    // Before a byte of any client is read. What stays is for what a reload may want: files of others, metrics at another port.
    drop_after_load(&[Cap::DacOverride, Cap::NetBindService])?;
    let doors = Doors { listen: bound, gate: gate.clone(), tokens, reverse, terminal: Terminal::of(Agent::Clients) };
    let (summary, moved_from) = runtime::run(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Asked before there is a handler: under nohup it does nothing.
        let is_deaf = is_ignored(SignalKind::hangup().as_raw_value())?;
        let mut line = Line::now();
        let mut hangup = signal(SignalKind::hangup())?;
        let mut told = signal(SignalKind::from_raw(reload_signal()))?;
        let mut alone = Alone::start(policy, evidence, key, doors)?;
        if let Some(reverse) = alone.reverse {
            output::note(&format!("reverse proxy on http://{reverse}"));
        }
        output::note(&format!("proxy on http://{}; set HTTPS_PROXY and HTTP_PROXY to it", alone.address));
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                // The terminal is gone, and those who used the proxy from it.
                _ = hangup.recv(), if !is_deaf => {
                    if line.is_closing() {
                        break;
                    }
                    reload(&mut alone, &gate, file.as_deref(), args);
                }
                () = line.change() => {}
                _ = told.recv() => reload(&mut alone, &gate, file.as_deref(), args),
            }
        }
        Ok::<_, Failure>(alone.end().await?)
    })??;
    prompt::settle();
    output::note(&format!("{} receipts in {}", summary.closed.receipt_count, summary.folder.display()));
    output::moved(&summary.folder, moved_from.as_deref());
    Ok(0)
}

/// Reads policy and tokens again; mistakes are logged, and change nothing of either.
fn reload(alone: &mut Alone, gate: &Gate, file: Option<&Path>, args: &Args) {
    let policy = read(file).map_err(|errors| errors.to_string());
    let known = args.tokens.as_deref().map(identities).transpose().map_err(|failure| failure.text);
    let reloaded = policy.and_then(|policy| Ok((policy, known?))).and_then(|(policy, known)| {
        let (known, tokens) = known.unzip();
        alone.reload(policy, tokens.unwrap_or_default()).map_err(|error| error.to_string())?;
        known.into_iter().for_each(|known| gate.renew(known));
        Ok(())
    });
    count_reload(reloaded.is_ok());
    if let Err(error) = reloaded {
        tracing::error!("the policy was not changed: {error}");
    }
}

/// The terminal that it was started at. A hangup means its end only when the two come together: who was told to live on without it
/// (`disown`) is hung up later to reload.
enum Line {
    There,
    /// Closed a moment ago: a hangup that comes before this is of that.
    Closed(Instant),
    /// There is none, or none any more.
    Gone,
}

impl Line {
    fn now() -> Self {
        if has_terminal() { Self::There } else { Self::Gone }
    }

    /// Waits until it is closed, or until that is over. The kernel tells nobody that a session has lost its terminal while somebody
    /// else still has it open.
    async fn change(&mut self) {
        *self = match self {
            Self::There => {
                while has_terminal() {
                    tokio::time::sleep(LOOK).await;
                }
                Self::Closed(Instant::now() + CLOSES)
            }
            Self::Closed(due) => {
                tokio::time::sleep_until(*due).await;
                tracing::info!("the terminal is gone, and nobody has hung up: SIGHUP reloads");
                Self::Gone
            }
            Self::Gone => std::future::pending().await,
        };
    }

    /// Whether a hangup that has come just now is of its end.
    fn is_closing(&self) -> bool {
        match self {
            // Nobody had the time to notice.
            Self::There => !has_terminal(),
            Self::Closed(_) => true,
            Self::Gone => false,
        }
    }
}

fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Tokens, each with what findings call it.
type Tokens = Arc<[(String, Vec<u8>)]>;

/// Those who may use the proxy, and their tokens.
fn identities(file: &Path) -> Result<(Identities, Tokens), Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", file.display()));
    if file.metadata().is_ok_and(|facts| facts.permissions().mode() & 0o077 != 0) {
        output::note(&format!("warning: others may read the tokens in {0}: chmod 600 {0}", file.display()));
    }
    let text = String::from_utf8(files::read(file, MOST_TOKENS)?).map_err(|error| failed(&error))?;
    let known = Identities::parse(&text).map_err(|error| failed(&error))?;
    Ok((known, Identities::tokens(&text).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_would_be_cut_are_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let line = "a=0123456789abcdef0123456789abcdef\n";
        let long = "#".repeat(usize::try_from(MOST_TOKENS).expect("it fits"));
        std::fs::write(file.path(), format!("{line}{long}")).expect("written");
        assert!(identities(file.path()).is_err_and(|failure| failure.text.contains("more than")));
        std::fs::write(file.path(), line).expect("written");
        assert!(identities(file.path()).is_ok());
    }
}
