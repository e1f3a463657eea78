//! The log: structured events on stderr, one per decision, never a secret. Started by `cli` before anything else.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log. `PIPELOCK_LOG` (the syntax of `RUST_LOG`) overrides `default_level`.
///
/// A second call does nothing: the first one decides.
pub fn init(format: LogFormat, default_level: &str) {
    let filter = EnvFilter::try_from_env("PIPELOCK_LOG").unwrap_or_else(|_| EnvFilter::new(default_level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let _ = match format {
        LogFormat::Text => builder.compact().try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
