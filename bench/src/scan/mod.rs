//! `scan`: the scan engine's figures, each with its aim, beside its ceiling (one bare pass of vectorscan, ours and that of
//! Python's hyperscan, over the same patterns), beside the regex crate rule by rule, and beside other scanners. One
//! thread, processor time.

mod hostile;
mod measure;
mod peers;
mod texts;

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use measure::{best, once, rate, shown};
use pipelock_scan::{Kind, RuleSet, Scanner};
use texts::MIB;

const KEY: [u8; 32] = [0; 32];
/// Bytes of a piece of a stream.
const PIECE: usize = 16 << 10;
/// Bytes that the other scanners read.
const PEER_TEXT: usize = 8 * MIB;

/// What is measured, what is aimed at, and whether it is reached.
#[derive(Default)]
struct Figures(String);

impl Figures {
    fn add(&mut self, name: &str, aim: &str, reached: &str, met: bool) {
        // What no number was asked for is told, not met.
        let met = match aim {
            "–" | "stated" | "bounded" => "–",
            _ if met => "yes",
            _ => "**no**",
        };
        self.0.push_str(&format!("| {name} | {aim} | {reached} | {met} |\n"));
    }
}

pub(crate) fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut figures = Figures::default();
    let scanner = load(folder.path(), &mut figures)?;
    let (table, clean) = ordinary(&scanner, folder.path(), &mut figures)?;
    let hostile = hostiles(&scanner, clean, &mut figures)?;
    let held = held(&scanner, folder.path(), &mut figures)?;
    let text = format!(
        "# Scan engine\n\n`cargo xtask bench scan`: {} rules and {} of the concept scorer; one thread, processor time, best of up \
         to {} rounds.\n\n| figure | aim | reached | met |\n|---|---|---|---|\n{}\n{table}\n{hostile}\n{held}",
        scanner.rules().rules().len(),
        scanner.rules().concepts().len(),
        measure::ROUNDS,
        figures.0,
    );
    println!("{text}");
    let results = Path::new("bench/results");
    if results.is_dir() {
        std::fs::write(results.join("scan.md"), text)?;
    }
    Ok(())
}

/// Only the times of some files, for whoever works on the engine: `pipelock-bench scan FILE…`, with the compiled rules kept in
/// the folder of temporary files.
pub(crate) fn files(names: &[&str]) -> Result<()> {
    let cache = std::env::temp_dir().join("pipelock-bench-rules");
    drop(Scanner::cached(RuleSet::shipped()?, &KEY, &cache)?);
    let mut scanner = None;
    let rules = once(|| drop(RuleSet::shipped()));
    let set = RuleSet::shipped()?;
    let load = once(|| scanner = Scanner::cached(set.clone(), &KEY, &cache).ok());
    let scanner = scanner.context("no scanner")?;
    let first = once(|| drop(scanner.scan(texts::URL)));
    let push = once(|| drop(streamed(&scanner, texts::URL)));
    println!("rules {}, load {}, first scan {}, first stream {}", shown(rules), shown(load), shown(first), shown(push));
    for name in names {
        let text = std::fs::read(name)?;
        let scan = best(text.len(), || drop(scanner.scan(&text)));
        let bare = best(text.len(), || drop(scanner.reports(&text)));
        let pieces = best(text.len(), || drop(streamed(&scanner, &text)));
        let (reports, findings) = (scanner.reports(&text)?, scanner.scan(&text)?.len());
        println!(
            "{name}: scan {} ({:.0} MB/s), bare pass {} ({reports} reports), in pieces {}, {findings} findings",
            shown(scan),
            rate(text.len(), scan),
            shown(bare),
            shown(pieces)
        );
    }
    Ok(())
}

/// Starts: the first one compiles, later ones load.
fn load(folder: &Path, figures: &mut Figures) -> Result<Scanner> {
    let cache = folder.join("rules");
    let clock = Instant::now();
    drop(Scanner::cached(RuleSet::shipped()?, &KEY, &cache)?);
    let compile = clock.elapsed();
    let rules = best(4 * MIB, || drop(RuleSet::shipped()));
    let set = RuleSet::shipped()?;
    let database = best(4 * MIB, || drop(Scanner::cached(set.clone(), &KEY, &cache)));
    // The first scan and the first stream make what is made when first needed.
    let scanner = Scanner::cached(RuleSet::shipped()?, &KEY, &cache).context("loading the compiled rules")?;
    let first = once(|| drop(scanner.scan(texts::URL)));
    let stream = once(|| drop(streamed(&scanner, texts::URL)));
    let all = rules + database + first;
    figures.add(
        "load of the compiled rules",
        "≤ 5 ms",
        &format!("{}: rules {}, database {}, first scan {}", shown(all), shown(rules), shown(database), shown(first)),
        all <= Duration::from_millis(5),
    );
    figures.add("the first stream of a process, once", "–", &shown(stream), true);
    figures.add("first start, which compiles (clock)", "–", &shown(compile), true);
    Ok(scanner)
}

/// Ordinary texts, in every way; and the time of 1 MiB of prose.
fn ordinary(scanner: &Scanner, folder: &Path, figures: &mut Figures) -> Result<(String, Duration)> {
    let texts = texts::ordinary()?;
    let mut peers = peers::Peers::install()?;
    let mut files = Vec::new();
    for (number, (_, text)) in texts.iter().enumerate() {
        files.push(folder.join(format!("{number}.txt")));
        std::fs::write(&files[number], text)?;
    }
    let hyperscan = peers.hyperscan(&scanner.patterns(), &files);
    let oracle = Scanner::oracle(RuleSet::shipped()?, &KEY);
    let mut table = String::from(
        "| text | scan | MB/s | bare pass | its share | in pieces of 16 KiB | to whole | bare pass of Python's hyperscan | \
         the regex crate, rule by rule |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut clean = Duration::ZERO;
    for (number, (name, text)) in texts.iter().enumerate() {
        let scan = best(text.len(), || drop(scanner.scan(text)));
        let bare = best(text.len(), || drop(scanner.reports(text)));
        let pieces = best(text.len(), || drop(streamed(scanner, text)));
        let mut findings = None;
        let plain = once(|| findings = oracle.scan(text).ok());
        ensure!(findings == scanner.scan(text).ok(), "{name}: the engines differ");
        let python = hyperscan.as_ref().and_then(|(_, times)| times.get(number)).copied();
        let share = bare.as_secs_f64() / scan.as_secs_f64();
        let slower = pieces.as_secs_f64() / scan.as_secs_f64();
        writeln!(
            table,
            "| {name} | {} | {:.0} | {} | {share:.2} | {} | {slower:.2} | {} | {} |",
            shown(scan),
            rate(text.len(), scan),
            shown(bare),
            shown(pieces),
            python.map_or_else(|| "–".to_owned(), shown),
            shown(plain),
        )?;
        match *name {
            "a URL" => figures.add(name, "≤ 3 µs", &shown(scan), scan <= Duration::from_micros(3)),
            "10 KB of prose" => {
                figures.add("clean 10 KB, all passes", "≤ 60 µs", &shown(scan), scan <= Duration::from_micros(60));
            }
            "1 MiB of prose" => {
                clean = scan;
                let speed = rate(text.len(), scan);
                figures.add("clean 1 MiB", "≥ 300 MB/s", &format!("{speed:.0} MB/s"), speed >= 300.0);
                figures.add("clean 1 MiB, share of one bare pass", "≥ 0.5", &format!("{share:.2}"), share >= 0.5);
                if let Some(python) = python {
                    let share = python.as_secs_f64() / scan.as_secs_f64();
                    figures.add("… of one of Python's hyperscan", "≥ 0.5", &format!("{share:.2}"), share >= 0.5);
                }
                figures.add("streaming to block", "≤ 1.20", &format!("{slower:.2}"), slower <= 1.2);
            }
            _ => {}
        }
    }
    if let Some((version, _)) = &hyperscan {
        writeln!(table, "\nPython's hyperscan: {version}.")?;
    }
    let long = folder.join("long.txt");
    std::fs::write(&long, texts::prose(PEER_TEXT))?;
    let ours = texts::prose(PEER_TEXT);
    let scan = once(|| drop(scanner.scan(&ours)));
    writeln!(table, "\n| 8 MiB of prose | start | text | MB/s | to ours |\n|---|---|---|---|---|")?;
    writeln!(table, "| pipelock, in this process | – | {} | {:.0} | 1 |", shown(scan), rate(PEER_TEXT, scan))?;
    for peer in peers.programs(&long)? {
        if peer.text < Duration::from_millis(1) {
            writeln!(
                table,
                "| {} | {} | takes no longer than for an empty file: it skips the text | – | – |",
                peer.name,
                shown(peer.start)
            )?;
            continue;
        }
        let times = peer.text.as_secs_f64() / scan.as_secs_f64();
        let (start, text) = (shown(peer.start), shown(peer.text));
        let speed = rate(PEER_TEXT, peer.text);
        writeln!(table, "| {} | {start} | {text} | {speed:.1} | {times:.0} |", peer.name)?;
    }
    if !peers.missing.is_empty() {
        writeln!(table, "\nMissing: {}.", peers.missing.join("; "))?;
    }
    Ok((table, clean))
}

fn streamed(scanner: &Scanner, text: &[u8]) -> Result<usize> {
    let mut stream = scanner.stream()?;
    for piece in text.chunks(PIECE) {
        let _ = stream.push(piece)?;
    }
    Ok(stream.finish()?.len())
}

/// The slowest texts.
fn hostiles(scanner: &Scanner, clean: Duration, figures: &mut Figures) -> Result<String> {
    let expected = clean.as_secs_f64() * hostile::SIZE as f64 / MIB as f64;
    let mut rows = Vec::new();
    let (mut bomb, mut nested) = (0.0, 0.0);
    for (name, text) in hostile::all(scanner.rules())? {
        let mut findings = 0;
        let mut work = || findings = scanner.scan(&text).map_or(0, |found| found.len());
        work();
        let time = (0..3).map(|_| once(&mut work)).min().unwrap_or_default();
        let factor = time.as_secs_f64() / expected;
        match name.as_str() {
            "compressed, 1000 to 1" => bomb = time.as_secs_f64(),
            "every encoding in turn" => nested = factor,
            _ => {}
        }
        rows.push((factor, format!("| {name} | {} | {findings} | {factor:.0} |\n", shown(time))));
    }
    rows.sort_by(|one, other| other.0.total_cmp(&one.0));
    let worst = rows.first().map_or(0.0, |(factor, _)| *factor);
    figures.add("hostile: every encoding, to clean", "stated", &format!("{nested:.0} times"), true);
    figures.add("hostile: the worst text tried, to clean", "stated", &format!("{worst:.0} times"), true);
    figures.add("hostile: a bomb of any size", "bounded", &format!("{:.0} ms", bomb * 1e3), true);
    let count = rows.len();
    let rows: String = rows.into_iter().take(25).map(|(_, row)| row).collect();
    Ok(format!(
        "The 25 slowest of {count} hostile texts of 64 KiB; the last column is how much slower than clean prose they are.\n\n\
         | text | scan | findings | factor |\n|---|---|---|---|\n{rows}"
    ))
}

/// How much is held back of prose that comes token by token.
fn held(scanner: &Scanner, folder: &Path, figures: &mut Figures) -> Result<String> {
    let text = texts::prose(64 << 10);
    let mut table = String::from(
        "| prose, pushed token by token | held at most | on average | time a token | memory of the stream |\n\
         |---|---|---|---|---|\n",
    );
    let dlp = Scanner::cached(RuleSet::shipped()?.only(Kind::Dlp), &KEY, &folder.join("rules"))?;
    for (name, scanner) in [("all rules", scanner), ("without injections", &dlp)] {
        let (mut most, mut sum, mut count, mut memory) = (0, 0, 0, 0);
        let time = once(|| {
            let Ok(mut stream) = scanner.stream() else { return };
            let mut at = 0;
            for token in text.chunk_by(|before, _| *before != b' ') {
                at += token.len() as u64;
                let released = stream.push(token).map_or(0, |progress| progress.released);
                most = most.max(at - released);
                sum += at - released;
                count += 1;
                memory = memory.max(stream.memory());
            }
        });
        let average = sum / count.max(1);
        writeln!(
            table,
            "| {name} | {most} B | {average} B | {} | {memory} B |",
            shown(time / u32::try_from(count).unwrap_or(1).max(1))
        )?;
        if name == "all rules" {
            figures.add("memory per stream", "≤ 64 KB", &format!("{} KB", memory / 1000), memory <= 64 << 10);
            figures.add("held back of prose, on average", "about 200 B", &format!("{average} B"), average <= 200);
        }
    }
    Ok(table)
}
