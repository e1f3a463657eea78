//! `pipelock run`: makes a cgroup, attaches, starts the command in it, and writes its evidence.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use super::{Failure, keys, output};
use crate::app::{Ended, Namespace, Recorded, Session, SessionConfig};
use crate::kernel::Level;
use crate::sandbox::caps::{Cap, drop_after_load};
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::spawn::{AgentCommand, AgentProcess, AgentUser};

/// How long processes that the command left behind may take to die.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Run a command behind pipelock.
///
/// Makes a cgroup, attaches the programs to it, and starts CMD in it as an unprivileged user without privileges to gain.
/// CMD keeps the terminal; its exit code and signals are passed on. When it ends, whatever it left running is killed, the
/// evidence is completed and the cgroup is removed. Needs root.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  sudo pipelock run --policy policies/ci-python.yaml -- pip install requests\n  \
                        sudo pipelock run --policy p.yaml --evidence ./evidence --key signing.key -- ./agent.sh")]
pub(super) struct Args {
    /// The policy file; without one nothing is allowed.
    #[arg(long, short, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where the evidence goes; must not hold any yet [default: ./pipelock-evidence/RUN].
    #[arg(long, short, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// The key that signs (see keygen); without one a key is made for this run only.
    #[arg(long, short, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Run CMD as this user: a name, a uid, or uid:gid [default: who called sudo, else nobody].
    #[arg(long, short, value_name = "NAME")]
    user: Option<String>,
    /// Refuse to run when this kernel gives less.
    #[arg(long, value_enum, default_value = "full")]
    require_level: RequireLevel,
    /// Say nothing but errors.
    #[arg(long, short)]
    quiet: bool,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, value_name = "CMD", required = true)]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum RequireLevel {
    /// Connects and sends are decided; packets and other protocols may not be.
    Redirect,
    /// Every hook.
    Full,
}

impl From<RequireLevel> for Level {
    fn from(level: RequireLevel) -> Self {
        match level {
            RequireLevel::Redirect => Self::Redirect,
            RequireLevel::Full => Self::Full,
        }
    }
}

pub(super) fn run(args: Args) -> Result<u8, Failure> {
    let policy = keys::policy(args.policy.as_deref())?;
    if !args.quiet {
        keys::warn(&policy);
    }
    let key = keys::signing_key(args.key.as_deref())?;
    let user = match &args.user {
        Some(name) => AgentUser::named(name).map_err(Failure::usage)?,
        None => AgentUser::by_default(|name| std::env::var_os(name))?,
    };
    let id = format!("run-{}", keys::run_id()?);
    let evidence = args.evidence.clone().unwrap_or_else(|| PathBuf::from("pipelock-evidence").join(&id));
    let cgroup = Cgroup::create_child(&format!("pipelock-{id}"))?;
    let guard = Remove(&cgroup);
    let namespace = Namespace::bind().map_err(|error| format!("binding on loopback: {error}"))?;
    let session = Session::prepare(SessionConfig {
        mode: "run",
        cgroup: File::from(cgroup.fd().try_clone_to_owned()?),
        cgroup_path: cgroup.path().to_owned(),
        cgroup_id: cgroup.id(),
        require: args.require_level.into(),
        policy,
        evidence,
        namespaces: vec![namespace],
    })?;
    let (program, rest) = args.command.split_first().ok_or_else(|| Failure::usage("no command given"))?;
    let uid = user.uid;
    let command = AgentCommand::new(program, rest.to_vec(), user);
    let recorded = session.record(key, confinement(&command), Some(uid))?;
    let agent = match command.spawn(&cgroup) {
        Ok(agent) => agent,
        Err(error) => {
            recorded.abandon();
            return Err(Failure { text: error.to_string(), code: error.exit_code() });
        }
    };
    // The programs are loaded and the agent runs: what is left of our privileges goes before a byte of it is read.
    if let Err(error) = drop_after_load(&[Cap::Kill, Cap::DacOverride]) {
        let _ = cgroup.kill_all();
        recorded.abandon();
        return Err(error.into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (code, ended) = runtime.block_on(supervise(recorded, agent, &cgroup))?;
    drop(runtime);
    drop(guard);
    if !args.quiet {
        tell(&ended);
    }
    Ok(code)
}

/// Serves until the agent ends, then ends what it left behind and the session.
async fn supervise(recorded: Recorded, mut agent: AgentProcess, cgroup: &Cgroup) -> Result<(u8, Ended), Failure> {
    let serving = match recorded.serve() {
        Ok(serving) => serving,
        Err(error) => {
            let _ = cgroup.kill_all();
            return Err(error.into());
        }
    };
    let exit = agent.wait().await;
    if cgroup.is_populated().unwrap_or(true) {
        cgroup.kill_all()?;
        cgroup.wait_empty(KILL_TIMEOUT)?;
    }
    let ended = serving.end("agent ended", || true).await?;
    Ok((exit?.code(), ended))
}

fn confinement(_command: &AgentCommand) -> serde_json::Value {
    serde_json::Value::Null
}

fn tell(ended: &Ended) {
    let denied = ended.flows - ended.allowed;
    output::note(&format!(
        "{} flows: {} allowed, {denied} denied; {} receipts in {}",
        ended.flows,
        ended.allowed,
        ended.summary.closed.receipt_count,
        ended.summary.folder.display()
    ));
}

/// Removes the cgroup on the way out, whatever the way.
struct Remove<'a>(&'a Cgroup);

impl Drop for Remove<'_> {
    fn drop(&mut self) {
        let _ = self.0.kill_all();
        let _ = self.0.wait_empty(Duration::from_secs(2));
        if let Err(error) = self.0.remove() {
            output::note(&format!("the cgroup could not be removed: {error}"));
        }
    }
}
