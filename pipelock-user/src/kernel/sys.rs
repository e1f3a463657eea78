//! The few bpf(2) calls that aya does not offer, and mounting bpffs. Called by the kernel room only.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_MAP_FREEZE: libc::c_long = 22;
const BPF_LINK_CREATE: libc::c_long = 28;
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

/// What `union bpf_attr` of linux/bpf.h holds for BPF_PROG_LOAD, up to the last field that is used.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapUpdate {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct BtfLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// A program as it is given to the verifier.
pub(super) struct Program<'a> {
    /// BPF_PROG_TYPE_*
    pub(super) kind: u32,
    /// The attach point that it is verified for; 0 where the kernel does not want one.
    pub(super) attach: u32,
    /// Its name, of which the kernel keeps 15 bytes.
    pub(super) name: &'a str,
    pub(super) instructions: &'a [[u8; 8]],
    pub(super) license: &'a std::ffi::CStr,
    /// The types that it describes itself with.
    pub(super) types: Option<&'a OwnedFd>,
    /// Records of its functions, and the size of one.
    pub(super) functions: (&'a [u8], usize),
    /// Records of its source lines, and the size of one.
    pub(super) lines: (&'a [u8], usize),
}

/// Gives a program to the verifier, which writes to `log` if there is room for anything.
pub(super) fn load_program(program: &Program<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attr = ProgLoad {
        prog_type: program.kind,
        insn_cnt: narrow(program.instructions.len())?,
        insns: program.instructions.as_ptr() as u64,
        license: program.license.as_ptr() as u64,
        expected_attach_type: program.attach,
        ..ProgLoad::default()
    };
    for (to, from) in attr.prog_name.iter_mut().take(15).zip(program.name.bytes()) {
        *to = from;
    }
    if let Some(types) = program.types {
        attr.prog_btf_fd = raw(types.as_fd())?;
        let ((functions, function_size), (lines, line_size)) = (program.functions, program.lines);
        attr.func_info = functions.as_ptr() as u64;
        attr.func_info_rec_size = narrow(function_size)?;
        attr.func_info_cnt = narrow(functions.len().checked_div(function_size).unwrap_or(0))?;
        attr.line_info = lines.as_ptr() as u64;
        attr.line_info_rec_size = narrow(line_size)?;
        attr.line_info_cnt = narrow(lines.len().checked_div(line_size).unwrap_or(0))?;
    }
    if !log.is_empty() {
        attr.log_level = 1;
        attr.log_size = narrow(log.len())?;
        attr.log_buf = log.as_mut_ptr() as u64;
    }
    made(bpf(BPF_PROG_LOAD, &mut attr)?)
}

/// Gives the kernel the types that programs and maps describe themselves with.
pub(super) fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = BtfLoad { btf: types.as_ptr() as u64, btf_size: narrow(types.len())?, ..BtfLoad::default() };
    made(bpf(BPF_BTF_LOAD, &mut attr)?)
}

/// Fills the one value of a map of constants, and closes the map to changes.
pub(super) fn fill_constants(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let key = 0_u32;
    let (map_fd, key) = (raw(map)?, (&raw const key) as u64);
    bpf(BPF_MAP_UPDATE_ELEM, &mut MapUpdate { map_fd, key, value: value.as_ptr() as u64, ..MapUpdate::default() })?;
    bpf(BPF_MAP_FREEZE, &mut MapUpdate { map_fd, ..MapUpdate::default() }).map(|_| ())
}

/// Attaches a program to a cgroup for as long as the link is held or pinned.
pub(super) fn create_link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate { prog_fd: raw(program)?, target_fd: raw(cgroup)?, attach_type, flags: 0 };
    made(bpf(BPF_LINK_CREATE, &mut attr)?)
}

/// Pins an object.
pub(super) fn pin(object: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjGet { pathname: path.as_ptr() as u64, bpf_fd: raw(object.as_fd())?, file_flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr).map(|_| ())
}

fn narrow(number: usize) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::Error::other("too large for the kernel"))
}

fn raw(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(|_| io::Error::other("descriptor out of range"))
}

fn made(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(|_| io::Error::other("descriptor out of range"))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjGet { pathname: path.as_ptr() as u64, ..ObjGet::default() };
    made(bpf(BPF_OBJ_GET, &mut attr)?)
}

/// Puts another program behind a link, atomically: at no moment is the hook without a program.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
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
    let facts = parse_link_facts(&text);
    // Without these it was no description of a link, and says nothing about the cgroup.
    if facts.link_id == 0 || !text.contains("\ncgroup_id:") {
        return Err(io::Error::other("/proc/self/fdinfo does not describe the link"));
    }
    Ok(facts)
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
