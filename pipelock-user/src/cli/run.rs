//! `pipelock run`: makes a cgroup, attaches, starts the command in it, and writes its evidence.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::prompt::{self, Agent, Terminal};
use super::reload::{reload_policy, reload_signal};
use super::session::{SessionArgs, refuse_nested};
use super::{Failure, alone, keys, output};
use crate::app::lock::Lock;
use crate::app::state::State;
use crate::app::{
    Ended, Environment, Leave, Namespace, Recorded, Session, SessionConfig, TrustFolder, Withheld, loopback_is_up,
    runtime,
};
use crate::kernel::attachment_id;
use crate::recorder::Place;
use crate::sandbox::caps::{Cap, drop_after_load};
use crate::sandbox::cgroup::{Cgroup, CgroupError};
use crate::sandbox::limits;
use crate::sandbox::spawn::{AgentCommand, AgentProcess, AgentUser, keep_signals};

/// How the names of the cgroups of `run` begin.
const CGROUP: &str = "pipelock-run-";
/// How long processes that the command left behind may take to die.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often is looked whether what is hidden from the command still is.
const WATCH: Duration = Duration::from_secs(1);

/// Run a command behind pipelock.
///
/// Makes a cgroup, attaches the programs to it, and starts CMD in it as an unprivileged user without privileges to gain.
/// CMD keeps the terminal; its exit code and signals are passed on. When it ends, whatever it left running is killed, the
/// evidence is completed and the cgroup is removed. Needs root.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  sudo pipelock run --policy policies/ci-python.yaml -- pip install requests\n  \
                        sudo pipelock run --policy p.yaml --evidence ./evidence --key signing.key -- ./agent.sh")]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) session: SessionArgs,
    /// Run CMD as this user: a name, a uid, or uid:gid [default: who called sudo, else nobody].
    #[arg(long, short, value_name = "NAME")]
    user: Option<String>,
    /// Say nothing but errors.
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// Without CMD: where the proxy for explicit clients (HTTPS_PROXY) listens; beyond loopback with --tokens only.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8888", conflicts_with = "command")]
    pub(super) listen: SocketAddr,
    /// Without CMD: serve only those who send a token of this file (lines NAME=TOKEN) in Proxy-Authorization.
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub(super) tokens: Option<PathBuf>,
    /// Without CMD: also serve the clients of one destination, whatever they ask for, decided and read as all else is.
    #[arg(long, requires = "reverse_upstream", conflicts_with = "command")]
    reverse_proxy: bool,
    /// That destination: http://HOST:PORT or https://HOST:PORT, the port if it is another; a rule of the policy has to name it.
    #[arg(long, value_name = "URL", requires = "reverse_proxy")]
    pub(super) reverse_upstream: Option<String>,
    /// Where its clients come to; whoever reaches this is served.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8890", requires = "reverse_proxy")]
    pub(super) reverse_listen: SocketAddr,
    /// The command and its arguments; without one the proxy runs alone, for explicit clients, until SIGINT or SIGTERM;
    /// SIGHUP makes it read its policy and tokens again.
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(args: Args) -> Result<u8, Failure> {
    if args.command.is_empty() {
        meant_alone(&args, std::env::args_os().skip(1).any(|arg| arg == "--"))?;
    }
    limits::prepare()?;
    let policy = args.session.policy(args.quiet)?;
    let key = args.session.key()?;
    if args.command.is_empty() {
        return alone::serve(policy, key, &args);
    }
    let user = match &args.user {
        Some(name) => AgentUser::named(name).map_err(Failure::usage)?,
        None => AgentUser::by_default(|name| std::env::var_os(name))?,
    };
    if user.uid == 0 && !args.quiet {
        output::note(
            "warning: as root the command owns root's files, the evidence and the key among them; use another user",
        );
    }
    // A Ctrl-C would otherwise leave the cgroup and the programs behind.
    keep_signals()?;
    let cgroup = Cgroup::create_child(&format!("{CGROUP}{}", keys::run_id()?))?;
    let guard = Remove(&cgroup);
    refuse_nested(&cgroup)?;
    let file = policy.file().map(Path::to_owned);
    if !loopback_is_up() {
        return Err(
            "the loopback device of this network namespace is down, and the proxy listens there; bring it up: \
                    ip link set lo up"
                .into(),
        );
    }
    let evidence = args.session.evidence("run")?;
    let namespace = Namespace::bind().map_err(|error| format!("binding on loopback: {error}"))?;
    let (program, rest) = args.command.split_first().ok_or_else(|| Failure::usage("no command given"))?;
    let uid = user.uid;
    let mut withheld = Withheld::of(&policy).user(uid);
    if let Some(key) = args.session.key_file() {
        withheld = withheld.file(key);
    }
    let command = AgentCommand::new(program, rest.to_vec(), user);
    let mut command = withheld.variables().iter().fold(command, |command, name| command.env_remove(name));
    let confinement = confinement(&command, uid)?;
    let lock = Lock::take(&attachment_id(cgroup.id()))?;
    let session = Session::prepare(SessionConfig {
        lock,
        ours: Some(Cgroup::open(cgroup.path())?),
        mode: "run",
        cgroup: File::from(cgroup.fd().try_clone_to_owned()?),
        cgroup_path: cgroup.path().to_owned(),
        cgroup_id: cgroup.id(),
        require: args.session.level(),
        policy,
        environment: Environment::OfTheAgent(withheld.clone()),
        namespaces: vec![namespace],
    })?;
    for (hook, why) in &session.attachment().missing {
        output::note(&format!("warning: this kernel refuses {hook}, so it is not enforced: {why}"));
    }
    let trust = session.trust()?;
    for (variable, value) in trust.iter().flat_map(TrustFolder::variables) {
        command = command.env(variable, value);
    }
    for (file, place) in trust.iter().flat_map(TrustFolder::covers) {
        command = command.cover(file, place);
    }
    for (layer, place) in trust.iter().flat_map(TrustFolder::layers) {
        command = command.lay(layer.clone(), place.clone());
    }
    // Now that the authority is there, which may just have been made.
    for (file, place) in withheld.covers()? {
        command = command.cover(file, place);
    }
    let recorded = session.record(Place::At(evidence), key, confinement, Some(uid))?;
    let agent = match command.spawn(&cgroup) {
        Ok(agent) => agent,
        Err(error) => {
            if let Err(error) = close_unstarted(recorded) {
                output::note(&format!("the evidence is not complete: {}", error.text));
            }
            return Err(Failure { text: error.to_string(), code: error.exit_code() });
        }
    };
    // The programs are loaded and the agent runs: what is left of our privileges goes before a byte of it is read. From
    // here on, whatever fails, `recorded` ends the agent before it detaches.
    drop_after_load(&[Cap::Kill, Cap::DacOverride])?;
    let supervised = runtime::run(supervise(recorded, agent, &cgroup, file.as_deref()));
    prompt::settle();
    let (code, ended) = supervised??;
    drop(trust);
    drop(guard);
    if !args.quiet {
        output::ended(&ended);
    }
    output::moved(&ended.summary.folder, ended.moved_from.as_deref());
    Ok(code)
}

/// Refuses what is only for a command where there is none: an empty variable must not start a proxy that holds nobody.
fn meant_alone(args: &Args, has_dashes: bool) -> Result<(), Failure> {
    let said = match () {
        () if args.user.is_some() => "--user",
        () if args.session.names_level() => "--require-level",
        () if has_dashes => "--",
        () => return Ok(()),
    };
    Err(Failure::usage(format!(
        "{said} is for a command, and none is given: without one a proxy would be started that nobody has to use. Write the command \
         behind --, or leave {said} out for the proxy"
    )))
}

/// Whether it is a `run` that an attachment belongs to: as it said, or by the name of its cgroup, for one that was killed before it
/// could say so and for one whose word was lost.
pub(super) fn is_of_run(state: Option<&State>, cgroup: Option<&Cgroup>) -> bool {
    let is_named_so = |cgroup: &Cgroup| {
        let name = cgroup.path().file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(CGROUP))
    };
    state.map_or_else(|| cgroup.is_some_and(is_named_so), |state| state.mode == "run")
}

/// The cgroups of runs that are gone, whether anything is attached to them or not.
pub(super) fn left() -> Result<Vec<Cgroup>, CgroupError> {
    let mut all = Cgroup::named(CGROUP)?;
    all.retain(|cgroup| !cgroup.is_held());
    Ok(all)
}

/// Serves until the agent ends, then ends what it left behind and the session.
async fn supervise(
    recorded: Recorded,
    mut agent: AgentProcess,
    cgroup: &Cgroup,
    file: Option<&Path>,
) -> Result<(u8, Ended), Failure> {
    // Before the state file tells others how to ask: the signal's default action would end us.
    let mut reload = signal(SignalKind::from_raw(reload_signal()))?;
    let mut serving = recorded.serve()?;
    Terminal::of(Agent::Command(cgroup)).into_iter().for_each(|terminal| serving.ask_at(terminal));
    if let Some(listener) = agent.take_refusals()
        && let Err(error) = serving.serve_refusals(listener)
    {
        output::note(&format!("refused sockets will leave no receipt: {error}"));
    }
    let mut is_recording = true;
    let mut watch = tokio::time::interval(WATCH);
    let exit = loop {
        tokio::select! {
            exit = agent.wait() => break exit,
            _ = reload.recv() => reload_policy(&mut serving, file),
            () = serving.evidence_lost(), if is_recording => is_recording = false,
            _ = watch.tick() => serving.check_withheld(),
        }
    };
    let mut leave = Leave::Detached;
    if cgroup.is_populated().unwrap_or(true)
        && let Err(error) = cgroup.end(KILL_TIMEOUT)
    {
        // The evidence is completed all the same, and who cannot be ended is not set free.
        output::note(&format!(
            "processes that the command left behind could not be ended: {error}. They stay closed in; when they are gone, \
             `pipelock status` says how to detach what is left"
        ));
        leave = Leave::ClosedIn;
    }
    let ended = serving.end_as("agent ended", leave).await?;
    Ok((exit?.code(), ended))
}

/// Completes the evidence of a command that never ran, so that it is not taken for a run that was broken off.
fn close_unstarted(recorded: Recorded) -> Result<(), Failure> {
    runtime::run_here(async { Ok::<_, Failure>(recorded.serve()?.end("agent not started").await?) })??;
    Ok(())
}

fn confinement(command: &AgentCommand, uid: u32) -> Result<serde_json::Value, Failure> {
    let confinement = command.confinement()?;
    Ok(serde_json::json!({
        "seccomp": confinement.seccomp,
        "landlock": confinement.landlock,
        "landlock_scoped": confinement.landlock_scoped,
        "kernel_read_only": confinement.kernel_read_only,
        "other_user": confinement.other_user,
        "root": confinement.root,
        "no_new_privs": true,
        "uid": uid,
    }))
}

/// Removes the cgroup on the way out, whatever the way.
struct Remove<'a>(&'a Cgroup);

impl Drop for Remove<'_> {
    fn drop(&mut self) {
        let _ = self.0.end(Duration::from_secs(2));
        if let Err(error) = self.0.remove() {
            output::note(&format!("the cgroup could not be removed: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_is_for_a_command_starts_no_proxy() {
        for (line, said) in [
            (&["run", "--user", "nobody"][..], Some("--user")),
            (&["run", "--require-level", "full", "-p", "p.yaml", "--"], Some("--require-level")),
            (&["run", "-p", "p.yaml", "--"], Some("--")),
            (&["run", "-p", "p.yaml"], None),
        ] {
            let args = Line::try_parse_from(line).expect("it can be read").args;
            assert!(args.command.is_empty(), "{line:?}");
            let refused = meant_alone(&args, line.contains(&"--")).err();
            assert_eq!(refused.as_ref().map(|failure| failure.code), said.map(|_| 2), "{line:?}");
            assert!(said.is_none_or(|said| refused.expect("refused").text.starts_with(&format!("{said} is for"))));
        }
    }
}
