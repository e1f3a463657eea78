//! The scanner that the command line of `pipelock scan` asks for. Called by the verb.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pipelock_scan::known::{self, Source};
use pipelock_scan::wallet::{AllowList, Likeness, Watch};
use pipelock_scan::{RuleSet, Scanner};

use super::super::files::read;
use super::super::{Failure, output};
use super::{Args, baseline, bundle};
use crate::app::folders;

/// Longest file of secrets, in bytes.
const MOST_SECRETS: u64 = 16 << 20;

/// The shipped rules and those of bundles: of all kinds, since what one finds must not show what another would have hidden.
pub(super) fn rules(args: &Args) -> Result<RuleSet, Failure> {
    let mut rules = RuleSet::shipped()?;
    for file in &args.rules_bundle {
        let key = args.bundle_key.as_deref().ok_or_else(|| Failure::usage("--rules-bundle needs --bundle-key"))?;
        rules = bundle::load(file, key)?.add_to(rules).map_err(Failure::usage)?;
    }
    Ok(rules)
}

/// The scanner; compiles the rules at the first call on this machine.
pub(super) fn scanner(args: &Args, rules: RuleSet) -> Result<Scanner, Failure> {
    let key = match &args.fingerprint_key {
        Some(file) => baseline::key(file)?,
        None => {
            let mut key = [0; 32];
            getrandom::fill(&mut key)?;
            key
        }
    };
    let allowed = AllowList::new(args.allow_address.iter().map(String::as_str), Likeness::default());
    let wallet = Watch { allowed: allowed.map_err(Failure::usage)?, ..Watch::default() };
    let builder = Scanner::builder(rules, &key).known(known(args)?).wallet(wallet);
    let builder = match folders::rules() {
        Some(folder) => builder.cache(&folder),
        None => builder,
    };
    patiently(|| builder.build().map_err(Failure::usage))
}

/// Runs what may take long, and says so when it does and somebody is there to read it.
fn patiently<T>(run: impl FnOnce() -> T) -> T {
    use std::io::IsTerminal as _;
    let (done, wait) = channel::<()>();
    std::thread::scope(|scope| {
        if std::io::stderr().is_terminal() {
            // Without a thread there is no such line.
            let _ = std::thread::Builder::new().spawn_scoped(scope, move || {
                if wait.recv_timeout(Duration::from_millis(300)) == Err(RecvTimeoutError::Timeout) {
                    output::note("compiling the rules: some seconds, once on this machine");
                }
            });
        }
        let result = run();
        drop(done);
        result
    })
}

fn known(args: &Args) -> Result<known::Builder, Failure> {
    let mut builder = known::Builder::new();
    for name in &args.env {
        let value = std::env::var_os(name)
            .ok_or_else(|| Failure::usage(format!("--env {name}: there is no such variable in the environment")))?;
        builder
            .add(name, value.as_encoded_bytes(), Source::Secret)
            .map_err(|reason| Failure::usage(format!("--env {name}: its value is {reason}")))?;
    }
    for file in &args.secrets {
        let shown = file.display().to_string();
        let text = read(file, MOST_SECRETS)?;
        let before = builder.len();
        let refused = known::from_file(&mut builder, &shown, &text);
        if builder.len() == before && refused.is_empty() {
            output::note(&format!("warning: {shown} adds no value to search for"));
        }
        for (line, reason) in refused {
            output::note(&format!("warning: {shown}:{line} is not searched for: its value is {reason}"));
        }
    }
    Ok(builder)
}
