//! `scan`: the engine beside its ceiling, one bare pass of vectorscan over the same patterns, and beside its measure, the
//! regex crate rule by rule. Times are processor time of one thread, the best of several rounds.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use pipelock_scan::{RuleSet, Scanner};

const MIB: usize = 1 << 20;
const KEY: [u8; 32] = [0; 32];

pub(crate) fn run() -> Result<()> {
    let rules = RuleSet::shipped()?;
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("rules");
    let compiled = Instant::now();
    drop(Scanner::cached(rules.clone(), &KEY, &cache)?);
    let compiled = compiled.elapsed();
    let mut scanner = Err(anyhow::anyhow!("not loaded"));
    let load = best(1, || scanner = Scanner::cached(rules.clone(), &KEY, &cache).context("loading the compiled rules"));
    let scanner = scanner?;
    let oracle = Scanner::oracle(rules.clone(), &KEY);

    let mut table = format!(
        "# Scan engine\n\n{} rules; compiling them takes {:.1} s, loading what was compiled {:.2} ms. One thread, processor time, \
         best of several rounds.\n\n| text | scan | MB/s | bare pass | share of it | in pieces of 16 KiB | rule by rule |\n\
         |---|---|---|---|---|---|---|\n",
        rules.rules().len(),
        compiled.as_secs_f64(),
        load.as_secs_f64() * 1e3,
    );
    for (name, text) in texts()? {
        let scan = best(text.len(), || drop(scanner.scan(&text)));
        let bare = best(text.len(), || drop(scanner.reports(&text)));
        let pieces = best(text.len(), || drop(streamed(&scanner, &text)));
        let plain = (text.len() <= 16 << 10).then(|| once(|| drop(oracle.scan(&text))));
        writeln!(
            table,
            "| {name} | {} | {:.0} | {} | {:.2} | {} | {} |",
            shown(scan),
            text.len() as f64 / 1e6 / scan.as_secs_f64(),
            shown(bare),
            bare.as_secs_f64() / scan.as_secs_f64(),
            shown(pieces),
            plain.map_or_else(|| "–".to_owned(), shown),
        )?;
    }
    let mut stream = scanner.stream()?;
    for piece in prose(MIB).chunks(16 << 10) {
        let _ = stream.push(piece)?;
    }
    writeln!(table, "\nA stream in the middle of prose takes {} bytes.", stream.memory())?;
    println!("{table}");
    let results = Path::new("bench/results");
    if results.is_dir() {
        std::fs::write(results.join("scan.md"), table)?;
    }
    Ok(())
}

fn streamed(scanner: &Scanner, text: &[u8]) -> Result<usize> {
    let mut stream = scanner.stream()?;
    for piece in text.chunks(16 << 10) {
        let _ = stream.push(piece)?;
    }
    Ok(stream.finish()?.len())
}

fn texts() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let url = b"https://api.example.com/v1/repos/pipelock/issues?state=open&page=2&per_page=50&sort=updated";
    let mut texts = vec![
        ("a URL", url.to_vec()),
        ("10 KiB of prose", prose(10 << 10)),
        ("1 MiB of prose", prose(MIB)),
        (
            "1 MiB of French",
            "L’élève a été très étonné par la forêt enchantée où dort le cœur. ".repeat(MIB / 70).into_bytes(),
        ),
        ("1 MiB of base64 of noise", base64_of_noise(MIB)),
        ("1 MiB of noise", noise(MIB)),
        ("64 KiB, all encodings nested", nested(64 << 10)),
    ];
    let mut source = Vec::new();
    for file in walk(Path::new("pipelock-user/src"))? {
        source.extend(std::fs::read(file)?);
    }
    texts.push(("our own source", source));
    Ok(texts)
}

fn walk(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(walk(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

/// Numbers that look random and are the same in every run.
fn numbers() -> impl Iterator<Item = u32> {
    std::iter::successors(Some(12345u32), |last| Some(last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)))
        .map(|number| number >> 12)
}

fn prose(size: usize) -> Vec<u8> {
    let words = "The committee met on Tuesday to review the quarterly report, and several members asked for more detail about \
                 the schedule. After a long discussion they agreed to send the draft to every office before the month was over.";
    let words: Vec<&str> = words.split(' ').collect();
    let mut text = String::new();
    for number in numbers() {
        if text.len() >= size {
            break;
        }
        text.push_str(words[number as usize % words.len()]);
        text.push(' ');
    }
    text.truncate(size);
    text.into_bytes()
}

fn noise(size: usize) -> Vec<u8> {
    numbers().map(|number| number as u8).take(size).collect()
}

fn base64_of_noise(size: usize) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    numbers().map(|number| alphabet[number as usize % 64]).take(size).collect()
}

/// What makes every view and codec work: each word written in another way, over and over.
fn nested(size: usize) -> Vec<u8> {
    let unit = "%2541%42 \\u0043\\x44 &#69;&amp;#70; =47=48=49 ｆｕｌｌ\u{200b}width 1gn0r3 i.g.n.o.r.e \
                SGVsbG8gd29ybGQsIHRoaXMgaXMgdGV4dA== 48656c6c6f20776f726c642c2074686973 JBSWY3DPEB3W64TMMQWCA5DINFZSA2LT ";
    unit.repeat(size / unit.len() + 1).into_bytes()
}

fn cpu() -> Duration {
    let Ok(time) = std::fs::read_to_string("/proc/thread-self/schedstat") else { return Duration::ZERO };
    Duration::from_nanos(time.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0))
}

fn once(mut work: impl FnMut()) -> Duration {
    let start = cpu();
    work();
    cpu() - start
}

/// The best of some rounds, each long enough to be measured.
fn best(bytes: usize, mut work: impl FnMut()) -> Duration {
    work();
    let repeats = u32::try_from((2 * MIB / bytes.max(1)).clamp(1, 20_000)).unwrap_or(1);
    let repeats = if bytes <= 1 { 1 } else { repeats };
    (0..9).map(|_| once(|| (0..repeats).for_each(|_| work())) / repeats).min().unwrap_or_default()
}

fn shown(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    if micros < 1000.0 { format!("{micros:.1} µs") } else { format!("{:.2} ms", micros / 1000.0) }
}
