//! A private view of the mounts in which the kernel's control files are read-only.
//!
//! Called by [`super::spawn`]. Whoever owns such a file may write it without any capability. So without this an agent
//! with uid 0 could move itself out of its cgroup (`cgroup.procs`), where sockets it makes meet no program, have the
//! kernel start programs outside (`core_pattern`, `uevent_helper`) or unpin ours (bpffs); and so could, for its cgroup,
//! a user whose desktop session was delegated one. The agent cannot undo it: it has no capability and no mount calls.
//!
//! In the same view the sockets of D-Bus and systemd are hidden: the agent's user may well be a person whose systemd
//! would start programs outside the cgroup when told so (`systemd-run --user`).

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::ptr;

use nix::sys::statfs::{self, FsType, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::cgroup::{CgroupError, find};

/// File systems that hold nothing but control files, as mountinfo and as statfs(2) name them.
const CONTROL: [(&[u8], FsType); 7] = [
    (b"cgroup2", statfs::CGROUP2_SUPER_MAGIC),
    (b"cgroup", statfs::CGROUP_SUPER_MAGIC),
    (b"sysfs", statfs::SYSFS_MAGIC),
    (b"bpf", statfs::BPF_FS_MAGIC),
    (b"debugfs", statfs::DEBUGFS_MAGIC),
    (b"tracefs", statfs::TRACEFS_MAGIC),
    (b"securityfs", statfs::SECURITYFS_MAGIC),
];
/// The parts of every proc that do; the rest are the agent's own processes.
const PROC_PARTS: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];

/// Folders in whose place the agent sees an empty one: what is made in them later, outside, stays unseen too.
const HIDDEN: [&CStr; 2] = [c"/run/user", c"/run/dbus"];
/// A socket in a folder that the agent needs, in whose place it sees no socket.
const SYSTEMD: &CStr = c"/run/systemd/private";

/// The folder of the user's own in the place of /run/user, which programs expect to be able to write to.
#[derive(Debug)]
struct Runtime {
    path: CString,
    uid: u32,
    gid: u32,
}

/// One place to make read-only.
#[derive(Debug)]
struct Place {
    path: CString,
    /// Not a mount yet: it has to become one first.
    bind: bool,
    flags: libc::c_ulong,
}

/// The places to make read-only, prepared for use after a fork.
#[derive(Debug)]
pub(super) struct ReadOnlyKernel {
    places: Vec<Place>,
    runtime: Option<Runtime>,
    /// Folders whose files are seen among those of others, as options of a mount, with the others.
    layers: Vec<(CString, CString)>,
    /// Files that stand in the place of others.
    covers: Vec<(CString, CString)>,
    /// Where everything is mounted.
    points: Vec<PathBuf>,
}

impl ReadOnlyKernel {
    /// Reads where they are. `uid` and `gid` are the agent's.
    pub(super) fn prepare(uid: u32, gid: u32) -> Result<Self, CgroupError> {
        let mountinfo = std::fs::read("/proc/self/mountinfo").map_err(|source| CgroupError::Io {
            what: "read",
            path: "/proc/self/mountinfo".into(),
            source,
        })?;
        let mut places = Vec::new();
        for (kind, magic) in CONTROL {
            let points = find::mounts_of(&mountinfo, kind).into_iter().map(|mount| mount.point);
            // A mount that is covered by another, or out of a chroot's sight, cannot be reached by name by the agent either.
            places.extend(points.filter(|point| is_on(point, magic)).filter_map(|point| Place::new(point, false)));
        }
        for mount in find::mounts_of(&mountinfo, b"proc") {
            let parts = PROC_PARTS.iter().map(|part| mount.point.join(part));
            let parts = parts.filter(|part| is_on(part, statfs::PROC_SUPER_MAGIC));
            places.extend(parts.filter_map(|part| Place::new(part, true)));
        }
        let folder = format!("/run/user/{uid}");
        let runtime = std::path::Path::new(&folder).is_dir().then(|| CString::new(folder).ok()).flatten();
        let runtime = runtime.map(|path| Runtime { path, uid, gid });
        let points = find::points(&mountinfo);
        Ok(Self { places, runtime, layers: Vec::new(), covers: Vec::new(), points })
    }

    /// Also shows the files of folders among those of others. What is mounted below a folder would not be seen any more, so
    /// such a folder is left as it is.
    pub(super) fn under(mut self, layers: &[(PathBuf, PathBuf)]) -> Self {
        let is_whole = |place: &PathBuf| !self.points.iter().any(|point| point != place && point.starts_with(place));
        let text = |path: &PathBuf| path.to_str().filter(|path| !path.contains([':', ',', '\\'])).map(str::to_owned);
        let layers = layers.iter().filter(|(_, place)| is_whole(place)).filter_map(|(layer, place)| {
            let options = format!("lowerdir={}:{}", text(layer)?, text(place)?);
            Some((CString::new(options).ok()?, CString::new(text(place)?).ok()?))
        });
        self.layers = layers.collect();
        self
    }

    /// Also shows files in the place of others.
    pub(super) fn covering(mut self, covers: &[(PathBuf, PathBuf)]) -> Self {
        let text = |path: &PathBuf| CString::new(path.as_os_str().as_bytes()).ok();
        self.covers.extend(covers.iter().filter_map(|(file, place)| Some((text(file)?, text(place)?))));
        self
    }

    /// True when a folder is one that the agent does not see. As its working folder it would lead there all the same.
    pub(super) fn hides(folder: &std::path::Path) -> bool {
        HIDDEN.iter().any(|hidden| folder.starts_with(std::ffi::OsStr::from_bytes(hidden.to_bytes())))
    }

    /// Moves the calling process into a mount namespace of its own and makes the places read-only there.
    /// Async-signal-safe; needs `CAP_SYS_ADMIN`.
    pub(super) fn apply(&self) -> io::Result<()> {
        // SAFETY: unshare takes no memory.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        let null = ptr::null();
        // Slave: what is mounted outside later still shows up inside, and never the other way round.
        // SAFETY: the strings are literals or owned by self; null is allowed for the rest. So for all calls below.
        check(unsafe { libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_SLAVE, ptr::null()) })?;
        for Place { path, bind, flags } in &self.places {
            let path = path.as_ptr();
            if *bind {
                // SAFETY: see above.
                check(unsafe { libc::mount(path, path, null, libc::MS_BIND, ptr::null()) })?;
            }
            let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | flags;
            // SAFETY: see above.
            check(unsafe { libc::mount(null, path, null, flags, ptr::null()) })?;
        }
        // Before the files, which may lie in such a folder.
        for (options, place) in &self.layers {
            let (overlay, flags) = (c"overlay".as_ptr(), libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV);
            // Without it the agent sees less, and so may not trust us; nothing depends on it otherwise.
            // SAFETY: see above.
            let _ = unsafe { libc::mount(overlay, place.as_ptr(), overlay, flags, options.as_ptr().cast()) };
        }
        for (file, place) in &self.covers {
            // SAFETY: see above.
            check(unsafe { libc::mount(file.as_ptr(), place.as_ptr(), null, libc::MS_BIND, ptr::null()) })?;
            let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV;
            // SAFETY: see above.
            check(unsafe { libc::mount(null, place.as_ptr(), null, flags, ptr::null()) })?;
        }
        self.hide()
    }

    fn hide(&self) -> io::Result<()> {
        let (tmpfs, mode) = (c"tmpfs".as_ptr(), c"mode=0755,size=64m".as_ptr());
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        for folder in HIDDEN {
            // SAFETY: see above.
            absent_or(unsafe { libc::mount(tmpfs, folder.as_ptr(), tmpfs, flags, mode.cast()) })?;
        }
        // SAFETY: see above.
        absent_or(unsafe {
            libc::mount(c"/dev/null".as_ptr(), SYSTEMD.as_ptr(), ptr::null(), libc::MS_BIND, ptr::null())
        })?;
        if let Some(Runtime { path, uid, gid }) = &self.runtime {
            // SAFETY: see above.
            check(unsafe { libc::mkdir(path.as_ptr(), 0o700) })?;
            // SAFETY: see above.
            check(unsafe { libc::chmod(path.as_ptr(), 0o700) })?;
            // SAFETY: see above.
            check(unsafe { libc::chown(path.as_ptr(), *uid, *gid) })?;
        }
        Ok(())
    }
}

/// What is not there needs no hiding.
fn absent_or(rc: libc::c_int) -> io::Result<()> {
    match check(rc) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(()),
        done => done,
    }
}

impl Place {
    fn new(path: PathBuf, bind: bool) -> Option<Self> {
        // A remount replaces all flags, so those that restrict are carried over.
        let has = statvfs(&path).ok()?.flags();
        let flags = [
            (FsFlags::ST_NOSUID, libc::MS_NOSUID),
            (FsFlags::ST_NODEV, libc::MS_NODEV),
            (FsFlags::ST_NOEXEC, libc::MS_NOEXEC),
            (FsFlags::ST_NOATIME, libc::MS_NOATIME),
            (FsFlags::ST_NODIRATIME, libc::MS_NODIRATIME),
            (FsFlags::ST_RELATIME, libc::MS_RELATIME),
        ]
        .into_iter()
        .filter(|(flag, _)| has.contains(*flag))
        .fold(0, |flags, (_, flag)| flags | flag);
        Some(Self { path: CString::new(path.into_os_string().into_vec()).ok()?, bind, flags })
    }
}

fn is_on(path: &PathBuf, magic: FsType) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == magic)
}

fn check(rc: libc::c_int) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn every_cgroup2_mount_and_the_sysctls_are_among_the_places() {
        let places = ReadOnlyKernel::prepare(1, 1).expect("root may");
        let has = |path: &std::path::Path| {
            places.places.iter().any(|place| place.path.as_bytes() == path.as_os_str().as_encoded_bytes())
        };
        assert!(has("/proc/sys".as_ref()));
        for point in super::super::cgroup::mount_points().unwrap_or_default() {
            assert!(has(&point), "{}", point.display());
        }
        assert!(!has("/proc".as_ref()) && !has("/".as_ref()));
    }

    #[test]
    fn what_lies_in_a_hidden_folder_is_no_place_to_work() {
        for (folder, is_hidden) in [("/run/user/1000", true), ("/run/dbus", true), ("/run/users", false), ("/", false)]
        {
            assert_eq!(ReadOnlyKernel::hides(folder.as_ref()), is_hidden, "{folder}");
        }
    }
}
