//! `demo`: the main job on real input, from set-up to evidence that does not verify any more, in one go.
//!
//! Servers, agent and policy are in xtask/demo, for reading. Needs no Internet; leaves nothing behind.

mod table;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{run, setup};

/// The demo's own files.
const FILES: &[&str] = &["agent.sh", "agent.py", "policy.yaml", "servers.py"];
/// What `pipelock verify` exits with when evidence does not verify.
const NOT_VERIFIED: i32 = 3;

/// Set up, run an agent behind pipelock, show what it did and what became of it, and prove it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep everything that the demo made, evidence included, in this new folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    run::need_root("demo")?;
    setup::base()?;
    let pipelock = run::build_pipelock()?;
    let temporary;
    let folder = match &args.keep {
        Some(folder) => {
            std::fs::create_dir(folder).with_context(|| folder.display().to_string())?;
            folder.canonicalize()?
        }
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().to_owned()
        }
    };
    // The agent runs as an unprivileged user and reads its files here.
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for file in FILES {
        std::fs::copy(run::root().join("xtask/demo").join(file), folder.join(file))
            .with_context(|| (*file).to_owned())?;
    }
    let demo = Demo { pipelock, folder };
    let servers = demo.servers()?;
    let agent = demo.agent();
    drop(servers);
    agent?;
    demo.receipts()?;
    demo.verify()?;
    demo.tamper()?;
    run::line("\nThe demo did what it should.");
    if let Some(folder) = &args.keep {
        run::line(&format!(
            "Its files are in {}; the evidence in {}.",
            folder.display(),
            folder.join("evidence").display()
        ));
    }
    Ok(())
}

struct Demo {
    pipelock: PathBuf,
    folder: PathBuf,
}

/// The servers; dropping ends them.
struct Servers(Child);

impl Drop for Servers {
    fn drop(&mut self) {
        // They end with their input; killing is for when they do not.
        drop(self.0.stdin.take());
        for _ in 0..50 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Demo {
    fn servers(&self) -> Result<Servers> {
        run::say("starting the servers on 127.77.0.1");
        let mut command = Command::new("/usr/bin/python3");
        command.arg("servers.py").current_dir(&self.folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut servers = Servers(command.spawn().context("the demo's servers")?);
        let stdout = servers.0.stdout.take().context("no stdout")?;
        let mut word = String::new();
        BufReader::new(stdout).read_line(&mut word)?;
        ensure!(word.trim() == "ready", "the demo's servers did not start; what they said is above");
        Ok(servers)
    }

    /// `pipelock` with these words, in the demo's folder, shown to the person; returns its exit code.
    fn pipelock(&self, words: &[&str]) -> Result<i32> {
        run::line(&format!("\n$ pipelock {}", words.join(" ")));
        // In order on the screen, wherever each goes.
        let mut command = Command::new(&self.pipelock);
        command.args(words).current_dir(&self.folder).env("PATH", "/usr/local/bin:/usr/bin:/bin");
        // Whoever runs the demo may be root behind sudo: the agent must not become that person.
        command.env_remove("SUDO_UID").env_remove("SUDO_GID").env_remove("SUDO_USER");
        for proxy in ["http_proxy", "https_proxy", "no_proxy", "all_proxy"] {
            command.env_remove(proxy).env_remove(proxy.to_uppercase());
        }
        let status = command.status().with_context(|| run::shown(&command))?;
        status.code().with_context(|| format!("pipelock: {status}"))
    }

    fn agent(&self) -> Result<()> {
        ensure!(self.pipelock(&["keygen", "--output", "demo.key"])? == 0, "no key was made");
        let words =
            ["run", "--policy", "policy.yaml", "--evidence", "evidence", "--key", "demo.key", "--", "sh", "agent.sh"];
        let code = self.pipelock(&words)?;
        ensure!(code == 0, "the agent ended with {code}: something went otherwise than it should; see above");
        Ok(())
    }

    fn receipts(&self) -> Result<()> {
        run::line("\nWhat is in evidence/receipts.json:\n");
        let text = std::fs::read_to_string(self.folder.join("evidence/receipts.json"))?;
        run::line(&table::render(&serde_json::from_str(&text)?));
        run::line("\nThe ping is not there: an unprivileged agent gets no socket for it, so there never was a flow.");
        Ok(())
    }

    fn verify(&self) -> Result<()> {
        let code = self.pipelock(&["verify", "evidence", "--public-key", "demo.key.pub"])?;
        ensure!(code == 0, "the evidence does not verify (exit code {code})");
        Ok(())
    }

    /// Changes one byte of one receipt in a copy, and lets the verifier find it.
    fn tamper(&self) -> Result<()> {
        run::line("\nNow somebody hides where the agent tried to go, in a copy of the evidence:");
        let text = std::fs::read_to_string(self.folder.join("evidence/evidence.jsonl"))?;
        let copy = self.folder.join("forged.jsonl");
        let (forged, line) = forge(&text)?;
        std::fs::write(&copy, forged)?;
        run::line(&format!("one byte of receipt {} changed: tcp://192.0.2.1:80 is now tcp://192.0.2.2:80", line));
        let words = ["verify", "--receipt-chain", "forged.jsonl", "--public-key", "demo.key.pub"];
        let code = self.pipelock(&words)?;
        run::line(&format!("exit code {code}"));
        ensure!(code == NOT_VERIFIED, "the verifier should have exited with {NOT_VERIFIED}");
        Ok(())
    }
}

/// The evidence with one byte changed: the last digit of the address that the agent connected to directly. Also returns
/// the number of the receipt.
fn forge(evidence: &str) -> Result<(String, u64)> {
    const TARGET: &str = "\"tcp://192.0.2.1:80\"";
    let Some(at) = evidence.find(TARGET) else { bail!("no receipt of a flow to 192.0.2.1") };
    let (before, after) = evidence.split_at(at);
    let forged = format!("{before}{}{}", TARGET.replace(".1:", ".2:"), after.get(TARGET.len()..).unwrap_or_default());
    let line = evidence.get(..at).unwrap_or_default().lines().count().saturating_sub(1);
    let entry: serde_json::Value = serde_json::from_str(evidence.lines().nth(line).unwrap_or_default())?;
    let number = entry.pointer("/detail/action_record/chain_seq").and_then(serde_json::Value::as_u64);
    Ok((forged, number.context("the receipt has no number")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_byte_is_forged() {
        let line = |seq: u32, target: &str| {
            format!("{{\"detail\":{{\"action_record\":{{\"chain_seq\":{seq},\"target\":\"{target}\"}}}}}}\n")
        };
        let evidence =
            line(4, "tcp://web.demo.test:80") + &line(5, "tcp://192.0.2.1:80") + &line(6, "tcp://192.0.2.1:80");
        let (forged, number) = forge(&evidence).expect("there is a flow");
        assert_eq!(number, 5);
        assert_eq!(forged.len(), evidence.len());
        assert_eq!(forged.bytes().zip(evidence.bytes()).filter(|(a, b)| a != b).count(), 1);
        assert!(forge("{}").is_err());
    }
}
