//! The hooks, what each closes, and what level of protection this kernel can give. Used by `attach`, `run`, `status`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};

use super::object::OBJECT;

/// One hook.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The kernel's name for the attach point.
    pub name: &'static str,
    /// The function in the object.
    pub program: &'static str,
    /// Which layer it belongs to.
    pub layer: Layer,
}

/// What a group of hooks gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Connects and sends are redirected or refused. Without it there is no product.
    Redirect,
    /// Packets that no flow accounts for are dropped; sockets of other protocols are not created.
    Backstop,
    /// Ends of flows, bytes, and the peer address the agent sees.
    Account,
}

macro_rules! hooks {
    ($($name:literal $program:literal $layer:ident;)*) => {
        /// Every hook, in the order in which they are attached.
        pub const HOOKS: &[Hook] = &[$(Hook { name: $name, program: $program, layer: Layer::$layer },)*];
    };
}

hooks! {
    "cgroup_skb/egress" "pl_egress" Backstop;
    "cgroup_skb/ingress" "pl_ingress" Backstop;
    "cgroup/sock_create" "pl_sock_create" Backstop;
    "sock_ops" "pl_sock_ops" Account;
    "cgroup/connect4" "pl_connect4" Redirect;
    "cgroup/connect6" "pl_connect6" Redirect;
    "cgroup/sendmsg4" "pl_sendmsg4" Redirect;
    "cgroup/sendmsg6" "pl_sendmsg6" Redirect;
    "cgroup/bind4" "pl_bind4" Backstop;
    "cgroup/bind6" "pl_bind6" Backstop;
    "cgroup/post_bind4" "pl_post_bind4" Backstop;
    "cgroup/post_bind6" "pl_post_bind6" Backstop;
    "cgroup/recvmsg4" "pl_recvmsg4" Account;
    "cgroup/recvmsg6" "pl_recvmsg6" Account;
    "cgroup/getpeername4" "pl_getpeername4" Account;
    "cgroup/getpeername6" "pl_getpeername6" Account;
    "cgroup/sock_release" "pl_sock_release" Account;
}

/// How much of the design a kernel gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Not enough to promise anything.
    None,
    /// Connects and sends are decided, but nothing catches what they do not see.
    Redirect,
    /// Every hook.
    Full,
}

impl Level {
    /// The name on the command line and in the evidence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Redirect => "redirect",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the probe found.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The level this kernel gives.
    pub level: Level,
    /// Each hook, and why it cannot be had.
    pub hooks: Vec<(&'static str, Result<(), String>)>,
}

impl Probe {
    /// The hooks that this kernel refuses.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.hooks.iter().filter_map(|(name, result)| result.as_ref().err().map(|why| (*name, why.as_str())))
    }
}

/// Loads every program, attaches nothing, and says what level the kernel gives.
///
/// # Errors
/// When the object itself or its maps cannot be loaded (no CAP_BPF, no BPF in the kernel, memory limits).
pub fn probe() -> Result<Probe, aya::EbpfError> {
    let mut object = loader().load(OBJECT)?;
    let hooks = load_all(&mut object);
    Ok(Probe { level: level_of(&hooks), hooks })
}

/// A loader for our object. It relocates against no kernel type, so the kernel's BTF, megabytes of it, is not read.
pub(super) fn loader<'a>() -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    loader
}

/// Loads every program; for each hook, the kernel's last words if it was refused.
///
/// The verifier takes tens of milliseconds over the larger ones, one after the other, so they are given to it by several
/// threads at once; these are gone when this returns.
pub(super) fn load_all(object: &mut Ebpf) -> Vec<(&'static str, Result<(), String>)> {
    let mut programs: HashMap<String, &mut Program> =
        object.programs_mut().map(|(name, program)| (name.to_owned(), program)).collect();
    // The largest last: work is taken from the end.
    let mut work: Vec<(usize, Option<&mut Program>)> =
        HOOKS.iter().enumerate().map(|(index, hook)| (index, programs.remove(hook.program))).collect();
    work.sort_by_key(|(index, _)| HOOKS.get(*index).is_some_and(|hook| hook.layer == Layer::Redirect));
    let work = Mutex::new(work);
    let results = Mutex::new(vec![Err(String::new()); HOOKS.len()]);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = work.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some((index, program)) = next else { break };
                    let result = match program {
                        Some(program) => load(program),
                        None => Err("the object does not hold it".into()),
                    };
                    if let Some(slot) = results.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
                        *slot = result;
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    HOOKS.iter().map(|hook| hook.name).zip(results).collect()
}

fn load(program: &mut Program) -> Result<(), String> {
    let result = match program {
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => return Err("the object holds it as another type".into()),
    };
    result.map_err(|error| explain(&error))
}

fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    // The verifier's log ends with the reason; the beginning is register states.
    let tail: Vec<_> = text.lines().rev().take(12).collect();
    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn level_of(hooks: &[(&'static str, Result<(), String>)]) -> Level {
    let has = |layer: Layer| {
        HOOKS
            .iter()
            .filter(|hook| hook.layer == layer)
            .all(|hook| hooks.iter().any(|(name, result)| *name == hook.name && result.is_ok()))
    };
    match (has(Layer::Redirect), has(Layer::Backstop), has(Layer::Account)) {
        (true, true, true) => Level::Full,
        (true, _, _) => Level::Redirect,
        (false, _, _) => Level::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_but(missing: &str) -> Vec<(&'static str, Result<(), String>)> {
        HOOKS.iter().map(|hook| (hook.name, if hook.name == missing { Err("no".into()) } else { Ok(()) })).collect()
    }

    #[test]
    fn one_missing_hook_lowers_the_level() {
        assert_eq!(level_of(&all_but("")), Level::Full);
        assert_eq!(level_of(&all_but("cgroup_skb/egress")), Level::Redirect);
        assert_eq!(level_of(&all_but("cgroup/getpeername4")), Level::Redirect);
        assert_eq!(level_of(&all_but("cgroup/connect6")), Level::None);
    }
}
