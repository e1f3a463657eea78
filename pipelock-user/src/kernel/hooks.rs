//! The hooks, what each closes, and what level of protection this kernel can give. Used by `attach`, `run`, `status`.

use std::fmt;
use std::os::fd::OwnedFd;

use super::load::Loadable;
use super::side_by_side::side_by_side;

/// One hook.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The kernel's name for the attach point.
    pub name: &'static str,
    /// The function in the object.
    pub program: &'static str,
    /// Which layer it belongs to.
    pub layer: Layer,
    /// BPF_PROG_TYPE_*, from linux/bpf.h.
    pub(super) kind: u32,
    /// BPF_CGROUP_*, the attach point, from there too.
    pub(super) attach: u32,
}

/// BPF_PROG_TYPE_CGROUP_SKB
const SKB: u32 = 8;
/// BPF_PROG_TYPE_CGROUP_SOCK
const SOCK: u32 = 9;
/// BPF_PROG_TYPE_SOCK_OPS
const OPS: u32 = 13;
/// BPF_PROG_TYPE_CGROUP_SOCK_ADDR
const ADDR: u32 = 18;
/// BPF_PROG_TYPE_CGROUP_SOCKOPT
const OPT: u32 = 25;

impl Hook {
    /// The attach point that the verifier is told: programs of some kinds may read other fields at one than at another.
    pub(super) const fn attach_point_at_load(&self) -> u32 {
        match self.kind {
            SOCK | ADDR | OPT => self.attach,
            _ => 0,
        }
    }
}

/// What a group of hooks gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Connects and sends are redirected or refused. Without it there is no product.
    Redirect,
    /// Packets that no flow accounts for are dropped; sockets of other protocols are not created, groups not joined.
    Backstop,
    /// Ends of flows, bytes, and the peer address the agent sees.
    Account,
}

macro_rules! hooks {
    ($($name:literal $program:literal $layer:ident $kind:ident $attach:literal;)*) => {
        /// Every hook, in the order in which they are attached.
        pub const HOOKS: &[Hook] = &[$(Hook { name: $name, program: $program, layer: Layer::$layer, kind: $kind, attach: $attach },)*];
    };
}

hooks! {
    "cgroup_skb/egress" "pl_egress" Backstop SKB 1;
    "cgroup_skb/ingress" "pl_ingress" Backstop SKB 0;
    "cgroup/sock_create" "pl_sock_create" Backstop SOCK 2;
    "cgroup/setsockopt" "pl_setsockopt" Backstop OPT 22;
    "sock_ops" "pl_sock_ops" Account OPS 3;
    "cgroup/connect4" "pl_connect4" Redirect ADDR 10;
    "cgroup/connect6" "pl_connect6" Redirect ADDR 11;
    "cgroup/sendmsg4" "pl_sendmsg4" Redirect ADDR 14;
    "cgroup/sendmsg6" "pl_sendmsg6" Redirect ADDR 15;
    "cgroup/bind4" "pl_bind4" Backstop ADDR 8;
    "cgroup/bind6" "pl_bind6" Backstop ADDR 9;
    "cgroup/post_bind4" "pl_post_bind4" Backstop SOCK 12;
    "cgroup/post_bind6" "pl_post_bind6" Backstop SOCK 13;
    "cgroup/recvmsg4" "pl_recvmsg4" Account ADDR 19;
    "cgroup/recvmsg6" "pl_recvmsg6" Account ADDR 20;
    "cgroup/getpeername4" "pl_getpeername4" Account ADDR 29;
    "cgroup/getpeername6" "pl_getpeername6" Account ADDR 30;
    "cgroup/sock_release" "pl_sock_release" Account SOCK 34;
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
    let hooks: Vec<_> =
        load_all(&Loadable::new(None)?).into_iter().map(|(name, result)| (name, result.map(|_| ()))).collect();
    Ok(Probe { level: level_without(&missing(&hooks, |_| false)), hooks })
}

/// Loads the program of every hook; the kernel's last words for one that was refused.
///
/// The verifier takes milliseconds over the larger ones.
pub(super) fn load_all(object: &Loadable) -> Vec<(&'static str, Result<OwnedFd, String>)> {
    // The largest are begun first.
    let mut work: Vec<_> = HOOKS.iter().enumerate().collect();
    work.sort_by_key(|(_, hook)| (hook.layer == Layer::Redirect, hook.kind == SKB));
    let mut loaded = side_by_side(work, |(index, hook)| (index, hook.name, object.load(hook)));
    loaded.sort_unstable_by_key(|(index, ..)| *index);
    loaded.into_iter().map(|(_, name, result)| (name, result)).collect()
}

/// Of what was loaded for each of [`HOOKS`], the hooks that have no program: those whose own was refused, unless one is
/// linked there already. With the kernel's words; the ones that matter most first.
pub(super) fn missing<T>(
    loaded: &[(&'static str, Result<T, String>)],
    is_linked: impl Fn(&Hook) -> bool,
) -> Vec<(&'static str, String)> {
    let mut found: Vec<_> = HOOKS
        .iter()
        .zip(loaded)
        .filter_map(|(hook, (_, result))| Some((hook, result.as_ref().err()?)))
        .filter(|(hook, _)| !is_linked(hook))
        .collect();
    found.sort_by_key(|(hook, _)| hook.layer);
    found.into_iter().map(|(hook, why)| (hook.name, why.clone())).collect()
}

/// The level that remains without these hooks.
pub(super) fn level_without(missing: &[(&'static str, String)]) -> Level {
    let has = |layer: Layer| {
        !HOOKS.iter().any(|hook| hook.layer == layer && missing.iter().any(|(name, _)| *name == hook.name))
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

    fn all_but(refused: &[&str]) -> Vec<(&'static str, Result<(), String>)> {
        let is_refused = |hook: &Hook| refused.contains(&hook.name);
        HOOKS.iter().map(|hook| (hook.name, if is_refused(hook) { Err("no".into()) } else { Ok(()) })).collect()
    }

    #[test]
    fn one_missing_hook_lowers_the_level() {
        let level = |name| level_without(&missing(&all_but(&[name]), |_| false));
        assert_eq!(level(""), Level::Full);
        assert_eq!(level("cgroup_skb/egress"), Level::Redirect);
        assert_eq!(level("cgroup/setsockopt"), Level::Redirect);
        assert_eq!(level("cgroup/getpeername4"), Level::Redirect);
        assert_eq!(level("cgroup/connect6"), Level::None);
    }

    #[test]
    fn a_hook_that_a_former_proxy_linked_is_not_missing() {
        let loaded = all_but(&["cgroup/getpeername4", "cgroup/connect6", "cgroup/setsockopt"]);
        let names = |linked: &[&str]| -> Vec<_> {
            missing(&loaded, |hook| linked.contains(&hook.name))
                .into_iter()
                .map(|(name, why)| (name, why == "no"))
                .collect()
        };
        let all = [("cgroup/connect6", true), ("cgroup/setsockopt", true), ("cgroup/getpeername4", true)];
        assert_eq!(names(&[]), all, "what matters most first");
        assert_eq!(names(&["cgroup/connect6", "sock_ops"]), all[1..]);
        assert_eq!(level_without(&missing(&loaded, |_| true)), Level::Full);
    }
}
