//! Times the scorer on a clean text, on a text with anchors and on hostile ones: `cargo run --release --example speed`.
//! For whoever changes the lexicon or the scorer.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for developers")]

use std::hint::black_box;
use std::time::Instant;

use pipelock_scan::injection::Detector;

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
}
