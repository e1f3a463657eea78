//! Times the scorer on a clean text, on a text with anchors and on hostile ones, and what the detectors that are no patterns
//! add to a scan: `cargo run --release --example speed`. For whoever changes the lexicon, the scorer or a detector.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for developers")]

use std::hint::black_box;
use std::time::Instant;

use pipelock_scan::injection::Detector;
use pipelock_scan::known::{self, Source};
use pipelock_scan::wallet::{AllowList, Likeness, Watch};
use pipelock_scan::{RuleSet, Scanner};

const PROSE: &str = "The harbour lay quiet under a thin layer of mist while the first boats returned with their catch. Along the \
    quay, men in heavy coats sorted crates of herring and mackerel, and the smell of tar mixed with coffee from the small \
    kiosk. Nobody spoke much; the work was old and every hand knew its part. In the afternoon the wind turned north, the \
    sky cleared, and children ran along the wall counting the masts that came in. ";
const TECHNICAL: &str = "The parser reads each request and returns an error when the header is malformed; unknown options are \
    ignored. To build the project, run the following command and set the environment variables that the manual lists. \
    The password is read from the file and never written to the log. Each rule has a priority, and later rules override \
    earlier ones. Use the tool with the flag to list every user and the mode of each file. ";

fn main() {
    let started = Instant::now();
    let detector = Detector::builtin().unwrap();
    println!("load {:?}", started.elapsed());
    if std::env::args().len() > 1 {
        return;
    }
    let sample = |text: &str, size: usize| text.chars().cycle().take(size).collect::<String>();
    let cases = [
        ("prose 10 KB", sample(PROSE, 10_000)),
        ("technical 10 KB", sample(TECHNICAL, 10_000)),
        ("prose with one curly quote", format!("“{}", sample(PROSE, 10_000))),
        (
            "russian prose 10 KB",
            sample("Гавань лежала тихо под тонким слоем тумана, и первые лодки возвращались с уловом. ", 5_000),
        ),
        (
            "chinese prose 10 KB",
            sample("港口静静地躺在薄雾下，第一批船带着渔获回来了。码头上的人们在分拣鲱鱼。", 3_400),
        ),
        ("hostile: anchors 10 KB", sample("ignore password system prompt imagine user's instructions above. ", 10_000)),
        ("hostile: one sentence 10 KB", sample("ignore previous password mode ", 10_000)),
    ];
    for (name, text) in &cases {
        let runs = 200;
        let mut best = f64::MAX;
        let mut findings = 0;
        for _ in 0..runs {
            let started = Instant::now();
            findings = black_box(detector.scan(black_box(text))).len();
            best = best.min(started.elapsed().as_secs_f64());
        }
        println!("{name}: {:.1} µs, {:.0} MB/s, {findings} findings", best * 1e6, text.len() as f64 / best / 1e6);
    }
    detectors(&sample(PROSE, 1 << 20), "prose");
    detectors(&sample(TECHNICAL, 1 << 20), "technical");
    detectors(
        &sample("Гавань лежала тихо под тонким слоем тумана, и первые лодки возвращались с уловом. ", 1 << 19),
        "russian",
    );
}

/// Seven rules alone, and with one detector after the other.
fn detectors(text: &str, name: &str) {
    let rules = || RuleSet::read(&[("tests/rules.yaml", include_str!("../tests/rules.yaml"))]).unwrap();
    // Core detectors cannot be switched off: their costs are in all but the first line.
    let only = |ids: &'static [&str]| {
        rules().with_builtins().without(|rule| rule.pattern.source().is_empty() && !ids.contains(&&*rule.id))
    };
    let allowed = ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"];
    let watch = Watch { allowed: AllowList::new(allowed, Likeness::default()).unwrap(), ..Watch::default() };
    let mut values = known::Builder::new();
    for value in 0u64..20 {
        let text = format!(
            "{:x}-{:x}",
            value.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            value.wrapping_mul(0xc2b2_ae3d_27d4_eb4f) + 77
        );
        values.add(&format!("v{value}"), text.as_bytes(), Source::Secret).ok();
    }
    let cases = [
        ("rules alone", Scanner::builder(rules(), &[0; 32])),
        ("seed phrases", Scanner::builder(only(&["seed-phrase"]), &[0; 32])),
        ("floods", Scanner::builder(only(&["token-flood"]), &[0; 32])),
        ("20 known values", Scanner::builder(only(&["known-value"]), &[0; 32]).known(values)),
        ("wallet list", Scanner::builder(only(&["wallet-address-poisoned"]), &[0; 32]).wallet(watch)),
    ];
    for (what, builder) in cases {
        let scanner = builder.build().unwrap();
        let mut best = f64::MAX;
        for _ in 0..20 {
            let started = Instant::now();
            black_box(scanner.scan(black_box(text.as_bytes())).unwrap());
            best = best.min(started.elapsed().as_secs_f64());
        }
        println!("{name} 1 MB, {what}: {:.0} µs", best * 1e6);
    }
}
