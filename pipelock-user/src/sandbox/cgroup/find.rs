//! Where cgroup2 is mounted and where we are in it: pure readings of `/proc/self/mountinfo` and `/proc/self/cgroup`.
//!
//! Called by [`super::Cgroup`] and by the mounts module. cgroup2 may be mounted anywhere (`/sys/fs/cgroup`, `/sys/fs/cgroup/unified` on hybrid
//! hosts, a bind mount in a container), so nothing here assumes a path. Malformed lines are skipped, never trusted.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The folder of the file system that is visible here; `/` unless it is a bind mount of a part.
    pub(crate) root: PathBuf,
    /// Where it is mounted.
    pub(crate) point: PathBuf,
}

/// Where anything is mounted, in a mountinfo text.
pub(crate) fn points(mountinfo: &[u8]) -> Vec<PathBuf> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .collect()
}

/// Every mount of the file system `kind` in a mountinfo text (format: proc_pid_mountinfo(5)), in the order of the text.
pub(crate) fn mounts_of(mountinfo: &[u8], kind: &[u8]) -> Vec<Mount> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(|line| parse_mount(line, kind)).collect()
}

fn parse_mount(line: &[u8], kind: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    // id, parent, major:minor, root, mount point, options, optional fields …, "-", type, source, super options
    let root = fields.nth(3)?;
    let point = fields.next()?;
    fields.find(|field| *field == b"-")?;
    (fields.next()? == kind).then(|| Mount { root: unescape(root), point: unescape(point) })
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (first, tail) {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// The cgroup2 path in a `/proc/PID/cgroup` text: the line `0::/path` (format: cgroups(7)).
///
/// A folder that was removed under its processes has ` (deleted)` appended by the kernel and is not a place to build on.
pub(crate) fn own_path(proc_cgroup: &[u8]) -> Option<PathBuf> {
    let path = proc_cgroup.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    (path.starts_with(b"/") && !path.ends_with(b" (deleted)")).then(|| PathBuf::from(OsString::from_vec(path.to_vec())))
}

/// The folder that stands for `path` (as in `/proc/PID/cgroup`) under one of `mounts`; the mount with the widest view wins.
///
/// None when the cgroup lies outside every mount (`/../other` is how a cgroup namespace shows what is above it).
pub(crate) fn locate(mounts: &[Mount], path: &Path) -> Option<PathBuf> {
    if path.components().any(|part| matches!(part, Component::ParentDir)) {
        return None;
    }
    mounts
        .iter()
        .filter_map(|mount| path.strip_prefix(&mount.root).ok().map(|below| (mount, below)))
        .min_by_key(|(mount, _)| mount.root.components().count())
        .map(|(mount, below)| if below.as_os_str().is_empty() { mount.point.clone() } else { mount.point.join(below) })
}

/// The value of `key` in a flat keyed file such as `cgroup.events` (`populated 1`).
pub(crate) fn flat_key(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw
";
    const CONTAINER: &[u8] = b"700 600 0:26 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw
701 600 0:26 / /mnt/with\\040space\\134x rw - cgroup2 none rw";

    #[test]
    fn finds_the_mount_on_hybrid_hosts_and_through_escapes() {
        assert_eq!(mounts_of(HYBRID, b"cgroup2"), [Mount { root: "/".into(), point: "/sys/fs/cgroup/unified".into() }]);
        let mounts = mounts_of(CONTAINER, b"cgroup2");
        assert_eq!(mounts.len(), 2);
        assert_eq!(points(CONTAINER), [Path::new("/sys/fs/cgroup"), Path::new("/mnt/with space\\x")]);
        assert_eq!(mounts.get(1).map(|m| m.point.as_path()), Some(Path::new("/mnt/with space\\x")));
    }

    #[test]
    fn a_mount_point_called_cgroup2_is_not_a_cgroup2_mount() {
        assert!(
            mounts_of(b"1 2 0:3 / /cgroup2 rw - tmpfs cgroup2 rw\n1 2 0:3 / /x cgroup2\n\n", b"cgroup2").is_empty()
        );
    }

    #[test]
    fn own_path_reads_only_the_unified_line() {
        assert_eq!(own_path(b"4:memory:/a\n0::/system.slice/x\n"), Some("/system.slice/x".into()));
        assert_eq!(own_path(b"4:memory:/a\n"), None);
        assert_eq!(own_path(b"0::/gone (deleted)\n"), None);
        assert_eq!(own_path(b"0::relative\n"), None);
    }

    #[test]
    fn locate_maps_through_bind_mounts_and_refuses_what_is_outside() {
        let mounts = mounts_of(CONTAINER, b"cgroup2");
        let first = mounts.get(..1).expect("one");
        assert_eq!(locate(first, Path::new("/docker/abc/job")), Some("/sys/fs/cgroup/job".into()));
        assert_eq!(locate(first, Path::new("/docker/abc")), Some("/sys/fs/cgroup".into()));
        assert_eq!(locate(first, Path::new("/docker/abcdef")), None);
        assert_eq!(locate(&mounts, Path::new("/docker/abc/job")), Some("/mnt/with space\\x/docker/abc/job".into()));
        assert_eq!(locate(&mounts, Path::new("/../other")), None);
    }

    #[test]
    fn flat_keys_are_whole_words() {
        let events = "populated 1\nfrozen 0\n";
        assert_eq!(flat_key(events, "populated"), Some(1));
        assert_eq!(flat_key(events, "frozen"), Some(0));
        assert_eq!(flat_key(events, "pop"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mounts = mounts_of(&text, b"cgroup2");
            if let Some(path) = own_path(&text) {
                let _ = locate(&mounts, &path);
            }
        }

        #[test]
        fn escapes_round_trip(name in "[a-z \t\\\\]{1,20}") {
            let escaped = name.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
            prop_assert_eq!(unescape(escaped.as_bytes()), PathBuf::from(name));
        }
    }
}
