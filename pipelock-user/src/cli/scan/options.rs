//! The scanner that the command line of `pipelock scan` asks for. Called by the verb.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pipelock_receipt::PublicKey;
use pipelock_scan::known::{self, Source};
use pipelock_scan::rule::bundle::{Bundle, MOST_BYTES, VerifyingKey};
use pipelock_scan::wallet::{AllowList, Likeness, Watch};
use pipelock_scan::{Kind, RuleSet, Scanner};

use super::super::{Failure, output};
use super::{Args, What};

/// Longest file of secrets, in bytes.
const MOST_SECRETS: u64 = 16 << 20;

/// The shipped rules and those of bundles, of the kind that is asked for.
pub(super) fn rules(args: &Args) -> Result<RuleSet, Failure> {
    let mut rules = RuleSet::shipped()?;
    for file in &args.rules_bundle {
        let key = args.bundle_key.as_deref().ok_or_else(|| Failure::usage("--rules-bundle needs --bundle-key"))?;
        rules = bundle(file, key)?.add_to(rules).map_err(Failure::usage)?;
    }
    Ok(match args.kind {
        None => rules,
        Some(What::Dlp) => rules.only(Kind::Dlp),
        Some(What::Injection) => rules.only(Kind::Injection),
    })
}

/// The scanner; compiles the rules at the first call on this machine.
pub(super) fn scanner(args: &Args, rules: RuleSet) -> Result<Scanner, Failure> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    let allowed = AllowList::new(args.allow_address.iter().map(String::as_str), Likeness::default());
    let wallet = Watch { allowed: allowed.map_err(Failure::usage)?, ..Watch::default() };
    let builder = Scanner::builder(rules, &key).known(known(args)?).wallet(wallet);
    let builder = match folder("XDG_CACHE_HOME", ".cache") {
        Some(folder) => builder.cache(&folder.join("rules")),
        None => builder,
    };
    patiently(|| builder.build().map_err(Failure::usage))
}

/// The user's folder for such files of ours, if there is one.
fn folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let folder = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(below_home)));
    folder.filter(|folder| folder.is_absolute()).map(|folder| folder.join("pipelock"))
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
        let refused = known::from_file(&mut builder, &shown, &text);
        for (line, reason) in refused {
            output::note(&format!("warning: {shown}:{line} is not searched for: its value is {reason}"));
        }
    }
    Ok(builder)
}

fn read(file: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
    let mut text = Vec::new();
    std::fs::File::open(file).map_err(failed)?.take(most + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > most {
        return Err(Failure::usage(format!("{}: more than {most} bytes", file.display())));
    }
    Ok(text)
}

/// Reads and verifies a bundle; FILE.sig holds the signature: 64 bytes, or 128 hex digits.
fn bundle(file: &Path, key: &str) -> Result<Bundle, Failure> {
    let bytes = read(file, MOST_BYTES as u64)?;
    let mut beside = file.as_os_str().to_owned();
    beside.push(".sig");
    let beside = PathBuf::from(beside);
    let signature = read(&beside, 1024)?;
    let signature: [u8; 64] = match <[u8; 64]>::try_from(signature.as_slice()) {
        Ok(signature) => signature,
        Err(_) => std::str::from_utf8(&signature).ok().and_then(|text| unhex(text.trim())).ok_or_else(|| {
            Failure::usage(format!("{}: not an Ed25519 signature of 64 bytes or 128 hex digits", beside.display()))
        })?,
    };
    let key = PublicKey::parse(key).or_else(|_| PublicKey::load(Path::new(key))).map_err(Failure::usage)?;
    let key = unhex(&key.hex()).and_then(|key| VerifyingKey::from_bytes(&key).ok());
    let key = key.ok_or_else(|| Failure::usage("--bundle-key: not an Ed25519 key"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |time| time.as_secs());
    let failed = |error: pipelock_scan::RuleError| Failure::usage(format!("{}: {error}", file.display()));
    let bundle = Bundle::verify(&bytes, &signature, &[key], 0, now).map_err(failed)?;
    // The highest version seen is remembered, so that an old bundle is not taken for a new one.
    let Some(folder) = folder("XDG_STATE_HOME", ".local/state").map(|folder| folder.join("bundles")) else {
        return Ok(bundle);
    };
    let memory = folder.join(bundle.name());
    let seen = std::fs::read_to_string(&memory).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let bundle = Bundle::verify(&bytes, &signature, &[key], seen, now).map_err(failed)?;
    if bundle.version() > seen {
        let stored =
            std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&memory, format!("{}\n", bundle.version())));
        if let Err(error) = stored {
            output::note(&format!("warning: {}: {error}: an older bundle will not be noticed", memory.display()));
        }
    }
    Ok(bundle)
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
