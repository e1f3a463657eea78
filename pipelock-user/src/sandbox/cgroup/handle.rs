//! Asking the kernel for a cgroup by its id alone, which open_by_handle_at(2) does wherever the cgroup lies in the tree.
//!
//! Called by [`super::Cgroup::lives`]. The id of a cgroup is the file handle of its folder (kernfs, type 0xfe).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

/// FILEID_KERNFS of linux/exportfs.h.
const KERNFS: libc::c_int = 0xfe;

/// struct file_handle of linux/fs.h with the eight bytes that kernfs has.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: [u8; 8],
}

/// Whether the tree that is mounted at `point` has the cgroup; false when it was removed or never was.
pub(super) fn lives(point: &Path, id: u64) -> io::Result<bool> {
    let mount = File::open(point)?;
    let handle = Handle { bytes: 8, kind: KERNFS, id: id.to_ne_bytes() };
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the handle says its own size and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw const handle, flags) };
    match i32::try_from(fd) {
        Ok(fd) if fd >= 0 => {
            // SAFETY: the kernel has just made this descriptor for us.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            Ok(true)
        }
        _ => match io::Error::last_os_error() {
            gone if gone.raw_os_error() == Some(libc::ESTALE) => Ok(false),
            error => Err(error),
        },
    }
}
