//! What is measured under the load of [`crate::client`]: the ways a request takes, asked in rounds that take turns.
//!
//! Called by the kernel and the proxy suite.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cpu;

/// One line of the table.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Method, scheme and path.
    pub(crate) request: &'static str,
    /// Requests of a connection, and connections.
    pub(crate) count: usize,
    pub(crate) connections: usize,
    pub(crate) mode: &'static str,
    pub(crate) body: u64,
    /// One round; and mitmproxy, which keeps bodies whole and is slow, is left out.
    pub(crate) is_large: bool,
}

/// What is measured: a load, and what it passes through.
pub(crate) struct Subject {
    pub(crate) name: String,
    /// The load, or pipelock with the load in it; none of the proxy is in `pids` for the direct way.
    pub(crate) child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) pids: Vec<u32>,
    pub(crate) is_slow: bool,
}

impl Subject {
    pub(crate) fn start(name: &str, command: &mut Command, pids: Vec<u32>) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the load")?;
        let output = BufReader::new(child.stdout.take().context("stdout")?);
        let input = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, input, output, pids, is_slow: name == "mitmproxy" })
    }

    fn ask(&mut self, scenario: &Scenario) -> Result<Figures> {
        let Scenario { request, count, connections, mode, body, .. } = scenario;
        let before = cpu::used(&self.pids);
        let said = self.say(&format!("{request} {count} {connections} {mode} {body}"))?;
        let after = cpu::used(&self.pids);
        let number = |key: &str| said[key].as_f64().unwrap_or_default();
        let requests = number("count").max(1.0);
        Ok(Figures {
            rate: requests / number("seconds"),
            seconds: number("seconds"),
            p50: number("p50"),
            p99: number("p99"),
            cpu: (after.0.saturating_sub(before.0)).as_secs_f64() * 1e6 / requests,
        })
    }

    pub(crate) fn say(&mut self, line: &str) -> Result<Value> {
        writeln!(self.input.as_mut().context("input")?, "{line}").with_context(|| self.name.clone())?;
        let mut said = String::new();
        self.output.read_line(&mut said)?;
        serde_json::from_str(&said).with_context(|| format!("{}: {line}: {said:?}", self.name))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // The load ends with its input, and pipelock with the load.
        self.input = None;
        let _ = self.child.wait();
    }
}

/// What the load said, or the medians of it: requests a second, the time of all, times of a request and processor time of the
/// proxy for it in µs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) cpu: f64,
}

/// The medians of each subject's rounds, of each figure its own; one more round comes first and warms up. What is large has
/// one round and is not warmed up.
pub(crate) fn rounds(subjects: &mut [Subject], scenario: &Scenario, count: usize) -> Result<Vec<(String, Figures)>> {
    let rounds = if scenario.is_large { 1 } else { count + 1 };
    let mut all = vec![Vec::new(); subjects.len()];
    for round in 0..rounds {
        eprintln!("{}: round {} of {rounds}", scenario.name, round + 1);
        for (subject, figures) in subjects.iter_mut().zip(&mut all) {
            // It keeps bodies whole, and events never end.
            if (scenario.is_large || scenario.mode == "events") && subject.is_slow {
                continue;
            }
            let one = subject.ask(scenario)?;
            eprintln!("  {}: {:.0} requests/s, {:.0} µs", subject.name, one.rate, one.cpu);
            if round > 0 || rounds == 1 {
                figures.push(one);
            }
        }
    }
    let named = subjects.iter().map(|subject| subject.name.clone());
    Ok(named
        .zip(all)
        .filter(|(_, figures)| !figures.is_empty())
        .map(|(name, figures)| (name, medians(&figures)))
        .collect())
}

fn medians(figures: &[Figures]) -> Figures {
    let median = |of: fn(&Figures) -> f64| {
        let mut all: Vec<f64> = figures.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    Figures {
        rate: median(|one| one.rate),
        seconds: median(|one| one.seconds),
        p50: median(|one| one.p50),
        p99: median(|one| one.p99),
        cpu: median(|one| one.cpu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_its_own_median() {
        let round = |rate, cpu| Figures { rate, cpu, ..Figures::default() };
        let of = medians(&[round(1.0, 30.0), round(2.0, 10.0), round(3.0, 20.0)]);
        assert_eq!((of.rate, of.cpu), (2.0, 20.0));
    }
}
