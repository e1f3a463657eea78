//! What is shown at a scrape: the families that were registered, and those that are read at that moment.
//!
//! Called by `admin`; `app` fills in what it reads from the kernel and the disk. The format is that of Prometheus
//! (text, version 0.0.4).

use std::fmt::Write as _;

use prometheus::TextEncoder;

use super::label::Label;

/// The Content-Type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text that is being put together.
#[derive(Debug, Default)]
pub struct Scrape(String);

impl Scrape {
    /// With everything that was registered.
    pub(in crate::telemetry) fn of_registered() -> Self {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&super::registry().gather(), &mut text) {
            super::defect(&error);
        }
        Self(text)
    }

    /// The text.
    pub(in crate::telemetry) fn finish(self) -> String {
        self.0
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A counter that somebody else keeps.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(name, help, "counter");
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// Counters that somebody else keeps, by one label.
    pub fn counters<L: Label>(
        &mut self,
        name: &'static str,
        help: &'static str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) {
        self.family(name, help, "counter");
        for (key, value) in values {
            let word = L::WORDS.get(key.index()).copied().unwrap_or("other");
            let _ = writeln!(self.0, "{name}{{{}=\"{word}\"}} {value}", L::NAME);
        }
    }

    /// A value of this moment.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(name, help, "gauge");
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// A time, a share or another value with a fraction.
    pub fn fraction(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.family(name, help, "gauge");
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// The build: a series that is 1, with words that are fixed when pipelock is built.
    pub(in crate::telemetry) fn build(&mut self) {
        let name = "pipelock_build_info";
        self.family(name, "Always 1; which pipelock this is.", "gauge");
        let (version, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        let _ = writeln!(self.0, "{name}{{version=\"{version}\",arch=\"{arch}\"}} 1");
    }

    /// A counter with a fraction, as the process's time is.
    pub(in crate::telemetry) fn fraction_counter(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.family(name, help, "counter");
        let _ = writeln!(self.0, "{name} {value}");
    }
}
