//! Closing what the agent must not inherit: close_range(2), or what /proc/self/fd lists where a system call filter around us
//! does not know that call.
//!
//! Called by [`super::child`] between fork and exec: async-signal-safe, without memory of its own but the stack.

use std::io;

/// Bytes of directory entries that are read at a time.
const BUFFER: usize = 2048;
/// struct linux_dirent64: inode and offset of eight bytes each, length of the record, type, name.
const RECORD_LENGTH: usize = 16;
const NAME: usize = 19;

/// Marks every descriptor from `first` on close-on-exec; the report pipe has to live until exec succeeds.
pub(super) fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: close_range takes numbers only.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOSYS) => listed_from(first),
        error => Err(error),
    }
}

/// The same for what is listed: all there is, since this process has one thread.
fn listed_from(first: libc::c_uint) -> io::Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the path is a literal.
    let list = unsafe { libc::open(c"/proc/self/fd".as_ptr(), flags) };
    if list < 0 {
        return Err(io::Error::last_os_error());
    }
    let marked = mark(list, first);
    // SAFETY: ours, and nobody else knows of it.
    unsafe { libc::close(list) };
    marked
}

fn mark(list: libc::c_int, first: libc::c_uint) -> io::Result<()> {
    let mut buffer = [0_u8; BUFFER];
    loop {
        // SAFETY: the buffer has the size that is passed.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, list, buffer.as_mut_ptr(), BUFFER) };
        let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        let Some(mut records) = buffer.get(..read).filter(|records| !records.is_empty()) else { return Ok(()) };
        while let Some(name) = next_name(&mut records) {
            let Some(fd) = number(name).filter(|fd| fd.cast_unsigned() >= first) else { continue };
            // SAFETY: plain numbers.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
}

/// The name in the first of the records, which are then those after it.
fn next_name<'a>(records: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = records.get(RECORD_LENGTH..RECORD_LENGTH + 2)?;
    let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
    let name = records.get(NAME..length)?;
    *records = records.get(length..)?;
    name.split(|byte| *byte == 0).next()
}

/// A descriptor; none for "." and "..".
fn number(name: &[u8]) -> Option<libc::c_int> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn every_listed_descriptor_is_marked() {
        // More than one buffer full.
        let files: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").expect("open")).collect();
        let flags = |fd| nix::fcntl::fcntl(fd, nix::fcntl::F_GETFD).expect("fcntl");
        let first = files.iter().map(|file| file.as_raw_fd()).min().expect("some").cast_unsigned();
        // Those of other tests are close-on-exec as it is.
        for file in &files {
            nix::fcntl::fcntl(file, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::empty())).expect("fcntl");
        }
        listed_from(first + 1).expect("marked");
        let marked = files.iter().filter(|file| flags(*file) == libc::FD_CLOEXEC).count();
        assert_eq!(marked, files.len() - 1, "all but the first");
    }

    #[test]
    fn torn_records_are_no_names() {
        for records in [&[][..], &[0; 18], &[0; 40], &[0xff; 40]] {
            assert_eq!(next_name(&mut { records }), None, "{records:?}");
        }
        assert_eq!((number(b"17"), number(b".."), number(b"\xff")), (Some(17), None, None));
    }
}
