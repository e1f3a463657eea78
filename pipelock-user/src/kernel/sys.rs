//! The few bpf(2) calls that aya does not offer, and mounting bpffs. Called by the kernel room only.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_UPDATE: libc::c_long = 29;

#[repr(C)]
#[derive(Default)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

fn bpf<T>(cmd: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a fully initialised struct of the size that is passed; the kernel copies it in.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, cmd, std::ptr::from_mut(attr), size_of::<T>()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjGet { pathname: path.as_ptr() as u64, ..ObjGet::default() };
    let fd = bpf(BPF_OBJ_GET, &mut attr)?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::other("descriptor out of range"))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts another program behind a link, atomically: at no moment is the hook without a program.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let raw =
        |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).map_err(|_| io::Error::other("descriptor out of range"));
    let mut attr = LinkUpdate { link_fd: raw(link)?, new_prog_fd: raw(program)?, ..LinkUpdate::default() };
    bpf(BPF_LINK_UPDATE, &mut attr).map(|_| ())
}

/// What /proc/self/fdinfo says about a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkFacts {
    pub(super) link_id: u32,
    pub(super) prog_id: u32,
    pub(super) prog_tag: String,
    pub(super) cgroup_id: u64,
}

/// Reads the facts of an open link.
pub(super) fn link_facts(link: &impl AsFd) -> io::Result<LinkFacts> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_fd().as_raw_fd()))?;
    Ok(parse_link_facts(&text))
}

fn parse_link_facts(text: &str) -> LinkFacts {
    let mut facts = LinkFacts::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match key {
            "link_id" => facts.link_id = value.parse().unwrap_or(0),
            "prog_id" => facts.prog_id = value.parse().unwrap_or(0),
            "prog_tag" => value.clone_into(&mut facts.prog_tag),
            "cgroup_id" => facts.cgroup_id = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    facts
}

/// Mounts bpffs where it belongs, unless it is there.
pub(super) fn ensure_bpffs(mount_point: &Path) -> io::Result<()> {
    use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
    if statfs(mount_point).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    nix::mount::mount(
        Some("bpf"),
        mount_point,
        Some("bpf"),
        nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )
    .map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_facts_are_read_from_fdinfo() {
        let text = "pos:\t0\nflags:\t02000002\nlink_type:\tcgroup\nlink_id:\t12\nprog_tag:\t0a1b2c3d4e5f6071\nprog_id:\t34\ncgroup_id:\t5678\nattach_type:\t10\n";
        let facts = LinkFacts { link_id: 12, prog_id: 34, prog_tag: "0a1b2c3d4e5f6071".into(), cgroup_id: 5678 };
        assert_eq!(parse_link_facts(text), facts);
        assert_eq!(parse_link_facts("nonsense"), LinkFacts::default());
    }
}
