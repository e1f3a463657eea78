//! The command line: one file per verb; clap types live here and nowhere else.
//!
//! Exit codes: 0 ok, 1 failure, 2 usage or policy error, 3 security event (verification failed), and the command's own
//! code from `run`, where 125 is our own failure before it started, 126 and 127 as shells use them, 128 + n a signal.

mod alone;
mod attach;
mod ca;
mod check;
mod daemon;
mod detach;
mod doctor;
mod files;
mod keygen;
mod keys;
mod output;
mod prompt;
mod reload;
mod run;
mod scan;
mod session;
mod sign;
mod status;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::sandbox::limits::survive_file_limit;
use crate::telemetry::LogFormat;

/// The policy or the command line is wrong.
const USAGE: u8 = 2;
/// Evidence did not verify.
const SECURITY: u8 = 3;

/// Egress control for AI agents, enforced by the kernel and proved by signatures.
///
/// pipelock runs a command in a cgroup whose every socket is redirected to an inspecting proxy or refused, and writes a
/// signed receipt for every flow the kernel saw.
#[derive(Debug, Parser)]
#[command(name = "pipelock", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 ok · 1 failure, `check` says BLOCKED, or `scan` found something · 2 usage or policy error, or `scan` could not read something · 3 verification failed · `run` passes on the \
                        command's own (125: pipelock could not start it, 126: not executable, 127: not found, 128+n: signal n)\n\n\
                        First steps:\n  sudo pipelock run --policy policy.yaml -- curl https://example.com/\n  \
                        pipelock check --policy policy.yaml --url https://example.com/\n  \
                        pipelock keygen --output signing.key\n  \
                        sudo pipelock run --policy policy.yaml --evidence folder --key signing.key -- make test\n  \
                        sudo pipelock verify folder --public-key signing.key.pub"
)]
struct Cli {
    /// How log lines look; PIPELOCK_LOG sets their level (error, warn, info, debug).
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    Attach(attach::Args),
    Detach(detach::Args),
    Reload(reload::Args),
    Status(status::Args),
    Check(check::Args),
    Keygen(keygen::Args),
    Verify(verify::Args),
    Ca(ca::Args),
    Doctor(doctor::Args),
    Scan(scan::Args),
    Sign(sign::Args),
    /// Print the version.
    Version,
}

/// Parses the command line, does what it says, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    survive_file_limit();
    let cli = Cli::parse();
    let format = match cli.log_format {
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    };
    let quiet = matches!(cli.verb, Verb::Run(_));
    crate::telemetry::init(format, if quiet { "warn" } else { "info" });
    let result = match cli.verb {
        Verb::Run(args) => run::run(args),
        Verb::Attach(args) => attach::attach(args),
        Verb::Detach(args) => detach::detach(args),
        Verb::Reload(args) => reload::reload(&args),
        Verb::Status(args) => status::status(&args),
        Verb::Check(args) => check::check(&args),
        Verb::Keygen(args) => keygen::keygen(&args),
        Verb::Verify(args) => verify::verify(&args),
        Verb::Ca(args) => ca::ca(&args),
        Verb::Doctor(args) => doctor::doctor(&args),
        Verb::Scan(args) => scan::scan(&args),
        Verb::Sign(args) => sign::sign(&args),
        Verb::Version => {
            output::line(&format!("pipelock {}", env!("CARGO_PKG_VERSION")));
            Ok(0)
        }
    };
    let code = match result {
        Ok(code) if output::lost() => {
            output::error("what was to be written to stdout could not be; see whether its disk is full");
            // What the code says already stays said.
            if code == 0 { ExitCode::FAILURE } else { ExitCode::from(code) }
        }
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::error(&failure.text);
            ExitCode::from(failure.code)
        }
    };
    crate::telemetry::flush();
    code
}

/// What a verb ends with when it fails: a text for the person, a code for the script.
#[derive(Debug)]
struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    fn usage(text: impl std::fmt::Display) -> Self {
        Self { text: text.to_string(), code: USAGE }
    }
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { text: error.to_string(), code: 1 }
    }
}
