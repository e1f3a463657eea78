//! Attaches the programs to a cgroup and pins links and maps under a root-only folder; takes over what a dead proxy
//! left pinned; detaches.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aya::maps::MapError;
use pipelock_common::{Config, LAYOUT};

use super::hooks::{HOOKS, Hook, Level, level_without, load_all, missing};
use super::load::Loadable;
use super::maps::Maps;
use super::sys;

/// Where bpffs is mounted.
const BPFFS: &str = "/sys/fs/bpf";

/// The folder that holds one folder per attachment.
#[must_use]
pub fn pin_root() -> PathBuf {
    Path::new(BPFFS).join("pipelock")
}

/// What went wrong at the boundary to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// bpffs is neither there nor mountable.
    #[error("bpffs is not mounted at {BPFFS} and cannot be mounted: {0}. Run as root: mount -t bpf bpf {BPFFS}")]
    Bpffs(#[source] io::Error),
    /// The object was refused.
    #[error(
        "the kernel refused the programs' maps: {0}. pipelock needs root (CAP_BPF, CAP_NET_ADMIN) and Linux 6.1 or newer"
    )]
    Load(#[source] Box<aya::EbpfError>),
    /// A map is missing or of another shape.
    #[error("map {name}: {source}")]
    Map {
        /// The map's name.
        name: &'static str,
        /// What aya says.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A program was refused and the level that remains is too low.
    #[error("{hook} is refused by this kernel, and level {required} was required: {why}")]
    Hook {
        /// The hook.
        hook: &'static str,
        /// The level that was asked for.
        required: Level,
        /// The kernel's words.
        why: String,
    },
    /// A program could not be attached.
    #[error("{hook} could not be attached: {why}")]
    Attach {
        /// The hook.
        hook: &'static str,
        /// The kernel's words.
        why: String,
    },
    /// Another version of pipelock made what is attached.
    #[error(
        "{id} was attached by another version of pipelock (map layout {found}, this one has {LAYOUT}) and stays closed. End \
         it with: pipelock detach --id {id}; then attach anew"
    )]
    Layout {
        /// The attachment's name.
        id: String,
        /// Its layout: a number, or why none could be read.
        found: String,
    },
    /// A file of the attachment could not be made, read or removed.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How to attach.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Id of the cgroup; the attachment is named after it.
    pub cgroup_id: u64,
    /// Refuse below this level.
    pub require: Level,
}

impl Plan {
    /// The name of the attachment: the folder under [`pin_root`].
    #[must_use]
    pub fn id(&self) -> String {
        attachment_id(self.cgroup_id)
    }
}

/// The name of the attachment of a cgroup.
#[must_use]
pub fn attachment_id(cgroup_id: u64) -> String {
    format!("cg-{cgroup_id}")
}

/// One attached hook, as the evidence names it.
#[derive(Clone, Debug)]
pub struct HookInfo {
    /// The kernel's name for the attach point.
    pub hook: &'static str,
    /// Id of the link.
    pub link_id: u32,
    /// Id of the program.
    pub prog_id: u32,
    /// Tag of the program: the kernel's hash over its instructions.
    pub prog_tag: String,
}

/// What is pinned under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// Nothing.
    Absent,
    /// Links on the cgroup with this id.
    Live(u64),
    /// Leftovers: links of a cgroup that is gone, or maps without links.
    Dead,
}

/// Programs on a cgroup, pinned. Dropping it detaches nothing: that is what [`Attachment::detach`] is for.
#[derive(Debug)]
pub struct Attachment {
    /// Its name.
    pub id: String,
    /// Its folder on bpffs.
    pub dir: PathBuf,
    /// What was reached.
    pub level: Level,
    /// True when links of a former proxy were found and given new programs in place.
    pub taken_over: bool,
    /// The hooks.
    pub hooks: Vec<HookInfo>,
    /// Hooks that this kernel refuses, with its words.
    pub missing: Vec<(&'static str, String)>,
    /// The links, so that removing their pins detaches nothing while we live.
    links: Vec<(PathBuf, OwnedFd)>,
}

impl Attachment {
    /// Attaches to the cgroup, or takes over what is pinned under the same name.
    ///
    /// # Errors
    /// [`KernelError`]; what this call attached anew is detached again. What it took over stays attached, and so closed, with
    /// whichever programs are linked by then: new ones replace the former one by one.
    pub fn attach(cgroup: &impl AsFd, plan: &Plan) -> Result<(Self, Maps), KernelError> {
        sys::ensure_bpffs(Path::new(BPFFS)).map_err(KernelError::Bpffs)?;
        let dir = pin_root().join(plan.id());
        let taken_over = match Self::state_of(&dir)? {
            Pinned::Live(cgroup_id) if cgroup_id == plan.cgroup_id => true,
            Pinned::Absent => false,
            // The cgroup these links were on is gone, and its number is in use again: they hold nothing any more.
            Pinned::Live(_) | Pinned::Dead => {
                remove(&dir)?;
                false
            }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| KernelError::File { path: dir.clone(), source })?;
        // Nothing half attached is left behind; the caller learns the first error, which is the one to mend.
        let half = Half((!taken_over).then_some(&dir));
        let result = Self::attach_in(cgroup, plan, &dir, taken_over);
        if result.is_ok() {
            half.keep();
        }
        result
    }

    /// What is pinned under this name.
    ///
    /// # Errors
    /// [`KernelError::File`] when a pin is there and cannot be read: then nobody knows whether it holds anything.
    pub fn pinned(id: &str) -> Result<Pinned, KernelError> {
        Self::state_of(&pin_root().join(id))
    }

    fn state_of(dir: &Path) -> Result<Pinned, KernelError> {
        let mut found = Pinned::Absent;
        for hook in HOOKS {
            let path = dir.join(link_name(hook));
            match sys::open_pin(&path).and_then(|link| sys::link_facts(&link)) {
                Ok(facts) if facts.cgroup_id != 0 => return Ok(Pinned::Live(facts.cgroup_id)),
                Ok(_) => found = Pinned::Dead,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_there(&path)? => {}
                Err(source) => return Err(KernelError::File { path, source }),
            }
        }
        Ok(if found == Pinned::Absent && is_there(dir)? { Pinned::Dead } else { found })
    }

    /// Opens the maps of an attachment, if this version knows how to read them.
    ///
    /// # Errors
    /// [`KernelError::Layout`] when it does not; [`KernelError::Map`] when they cannot be opened or read.
    pub fn open_maps(id: &str) -> Result<Maps, KernelError> {
        let unknown = |found: String| KernelError::Layout { id: id.to_owned(), found };
        let dir = pin_root().join(id);
        let maps = Maps::open(&dir).map_err(|error| match &error {
            KernelError::Map { name, source }
                if is_other_shape(source) || matches!(is_there(&dir.join(name)), Ok(false)) =>
            {
                unknown(format!("without number: {error}"))
            }
            _ => error,
        })?;
        let config = maps.config().map_err(|error| KernelError::Map { name: "CONFIG", source: Box::new(error) })?;
        if config.layout == LAYOUT { Ok(maps) } else { Err(unknown(config.layout.to_string())) }
    }

    /// What is pinned under this name, for whoever reads its records: nothing is attached, and whether it enforces anything is not asked.
    ///
    /// # Errors
    /// As [`Self::open_maps`] and [`Self::inspect`].
    pub fn left(id: &str) -> Result<(Self, Maps), KernelError> {
        let maps = Self::open_maps(id)?;
        let hooks = Self::inspect(id)?;
        let (id, dir) = (id.to_owned(), pin_root().join(id));
        let (missing, links) = (Vec::new(), Vec::new());
        Ok((Self { id, dir, level: Level::None, taken_over: true, hooks, missing, links }, maps))
    }

    fn attach_in(cgroup: &impl AsFd, plan: &Plan, dir: &Path, taken_over: bool) -> Result<(Self, Maps), KernelError> {
        // Before anything is changed: programs that take a map for another would enforce something else.
        let found = if taken_over { Some(Self::open_maps(&plan.id())?) } else { None };
        let object = Loadable::new(Some(dir)).map_err(|error| KernelError::Load(Box::new(error)))?;
        let maps = match found {
            Some(maps) => maps,
            None => {
                let maps = Maps::open(dir)?;
                // Before any program is attached, so that whoever finds links finds a layout too.
                maps.set_config(Config { layout: LAYOUT, ..Config::default() })
                    .map_err(|error| KernelError::Map { name: "CONFIG", source: Box::new(error) })?;
                maps
            }
        };
        let loaded = load_all(&object);
        // A refused program replaces none: at a takeover the one that is linked enforces on.
        let missing = missing(&loaded, |hook| dir.join(link_name(hook)).exists());
        let level = level_without(&missing);
        if (level < plan.require || level == Level::None)
            && let Some((hook, why)) = missing.first().cloned()
        {
            return Err(KernelError::Hook { hook, required: plan.require, why });
        }
        let mut attachment = Self {
            id: plan.id(),
            dir: dir.to_owned(),
            level,
            taken_over,
            hooks: Vec::with_capacity(HOOKS.len()),
            missing,
            links: Vec::with_capacity(HOOKS.len()),
        };
        for (hook, (_, result)) in HOOKS.iter().zip(loaded) {
            let path = dir.join(link_name(hook));
            let put = match &result {
                Ok(program) if path.exists() => {
                    sys::open_pin(&path).and_then(|link| sys::update_link(link.as_fd(), program.as_fd()))
                }
                // A cgroup link is always in "multi" mode: programs of others on the same cgroup or its parents run too.
                Ok(program) => sys::create_link(program.as_fd(), cgroup.as_fd(), hook.attach)
                    .and_then(|link| sys::pin(&link, &path)),
                Err(why) if path.exists() => {
                    tracing::warn!(
                        hook = hook.name,
                        why,
                        "refused by this kernel; the program of the former proxy stays"
                    );
                    Ok(())
                }
                // Among the missing.
                Err(_) => continue,
            };
            put.map_err(|error| KernelError::Attach { hook: hook.name, why: error.to_string() })?;
            attachment.hooks.push(describe(hook, &path)?);
            let held = sys::open_pin(&path).map_err(|source| KernelError::File { path: path.clone(), source })?;
            attachment.links.push((path, held));
        }
        #[cfg(feature = "debug-ebpf")]
        super::object::keep_log(attachment.hooks.first().map_or(0, |hook| hook.prog_id));
        Ok((attachment, maps))
    }

    /// True while every link is pinned, which is what keeps the cgroup closed when we die.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pins().all(Path::exists)
    }

    /// Where the links are pinned.
    pub fn pins(&self) -> impl Iterator<Item = &Path> {
        self.links.iter().map(|(path, _)| path.as_path())
    }

    /// Lets go of the links: from here on only their pins keep the programs attached.
    pub fn let_go(&mut self) {
        self.links.clear();
    }

    /// Detaches and removes everything pinned under this name; who holds the links lets go of them before.
    ///
    /// # Errors
    /// [`KernelError::File`] when a pin cannot be removed; the rest is still removed.
    pub fn detach(id: &str) -> Result<(), KernelError> {
        remove(&pin_root().join(id))
    }

    /// The hooks that are attached under this name now, read from the pins: for `status`.
    ///
    /// # Errors
    /// [`KernelError::File`] when the folder or a pin cannot be read.
    pub fn inspect(id: &str) -> Result<Vec<HookInfo>, KernelError> {
        let dir = pin_root().join(id);
        let mut found = Vec::new();
        for hook in HOOKS {
            let path = dir.join(link_name(hook));
            if path.exists() {
                found.push(describe(hook, &path)?);
            }
        }
        Ok(found)
    }
}

/// The folder of an attachment that is not whole yet: removed when this is dropped, by a panic too.
struct Half<'a>(Option<&'a PathBuf>);

impl Half<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Half<'_> {
    fn drop(&mut self) {
        if let Some(dir) = self.0 {
            let _ = remove(dir);
        }
    }
}

/// Whether a file is there; not to be able to say is an error.
fn is_there(path: &Path) -> Result<bool, KernelError> {
    path.try_exists().map_err(|source| KernelError::File { path: path.to_owned(), source })
}

fn is_other_shape(error: &MapError) -> bool {
    use MapError::{InvalidKeySize, InvalidMapType, InvalidValueSize};
    matches!(error, InvalidKeySize { .. } | InvalidMapType { .. } | InvalidValueSize { .. })
}

fn link_name(hook: &Hook) -> String {
    format!("link_{}", hook.program)
}

fn describe(hook: &Hook, path: &Path) -> Result<HookInfo, KernelError> {
    let facts = sys::open_pin(path)
        .and_then(|link| sys::link_facts(&link))
        .map_err(|source| KernelError::File { path: path.to_owned(), source })?;
    Ok(HookInfo { hook: hook.name, link_id: facts.link_id, prog_id: facts.prog_id, prog_tag: facts.prog_tag })
}

fn remove(dir: &Path) -> Result<(), KernelError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(KernelError::File { path: dir.to_owned(), source }),
    };
    let mut first = None;
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if let Err(source) = fs::remove_file(&path) {
            first.get_or_insert(KernelError::File { path, source });
        }
    }
    if let Err(source) = fs::remove_dir(dir) {
        first.get_or_insert(KernelError::File { path: dir.to_owned(), source });
    }
    first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_cannot_be_read_is_not_taken_for_a_dead_one() {
        let dir = std::env::temp_dir().join(format!("pipelock-pins-{}", std::process::id()));
        assert_eq!(Attachment::state_of(&dir).expect("nothing there"), Pinned::Absent);
        fs::create_dir(&dir).expect("a folder");
        let dead = Attachment::state_of(&dir);
        let path = dir.join(link_name(&HOOKS[3]));
        fs::write(&path, "no pin").expect("a file");
        let unread = Attachment::state_of(&dir);
        fs::remove_dir_all(&dir).expect("clean up");
        assert_eq!(dead.expect("no links"), Pinned::Dead);
        assert!(matches!(&unread, Err(KernelError::File { path: found, .. }) if *found == path), "{unread:?}");
    }
}
