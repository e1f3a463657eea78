//! Tests of `server`, with real processes: one whose first thread has ended, and one that got the number of another.

use super::*;

/// Sleeps until it is killed.
extern "C" fn sleep_on(_: *mut libc::c_void) -> libc::c_int {
    loop {
        // SAFETY: takes nothing.
        unsafe { libc::pause() };
    }
}

/// A process that sleeps until it is killed, with this number if one is given; none when that is taken.
fn sleeper(number: Option<i32>) -> Option<i32> {
    /// As in linux/sched.h, version 2 (Linux 5.5).
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        plain: [u64; 4],
        exit_signal: u64,
        stack: [u64; 3],
        set_tid: u64,
        set_tid_size: u64,
    }
    let mut args = CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(number) = &number {
        args.set_tid = std::ptr::from_ref(number) as u64;
        args.set_tid_size = 1;
    }
    // SAFETY: like fork; the child does nothing but sleep, which takes no lock.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    if pid == 0 {
        // SAFETY: plain numbers; a test that fails takes its child with it.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        sleep_on(std::ptr::null_mut());
    }
    i32::try_from(pid).ok().filter(|pid| *pid > 0)
}

fn end(pid: i32) {
    // SAFETY: a child of our own that nobody else waits for.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

#[test]
fn the_start_time_is_found_behind_any_name() {
    let stat = "12 (a) b) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 4096 1";
    assert_eq!(parse_start(stat), Some(98765));
    assert_eq!(parse_start("garbage"), None);
    assert!(start_time(i32::try_from(std::process::id()).expect("a pid")).is_some());
}

#[test]
fn a_signal_reaches_a_server_and_its_end_is_seen() {
    let pid = sleeper(None).expect("fork");
    let start = start_time(pid).expect("there");
    assert!(Server::find(pid, start + 1).is_none(), "another start is another process");
    let server = Server::find(pid, start).expect("there");
    assert!(server.is_alive() && !server.wait_end(Duration::from_millis(5)));
    server.signal(libc::SIGTERM).expect("it lives");
    assert!(server.wait_end(Duration::from_secs(10)));
    assert!(Server::find(pid, start).is_none(), "a zombie serves nobody");
    end(pid);
    assert!(Server::find(pid, start).is_none());
}

#[test]
#[ignore = "needs root"]
fn a_number_that_is_in_use_again_is_nobodys_server() {
    // Only root may choose a number.
    // Somebody else may get the number first; then another is tried.
    for _ in 0..50 {
        let pid = sleeper(None).expect("fork");
        let start = start_time(pid).expect("there");
        let server = Server::find(pid, start).expect("there");
        // A tick is ten milliseconds at most; within one the two could not be told apart by their start.
        std::thread::sleep(Duration::from_millis(20));
        end(pid);
        let Some(other) = sleeper(Some(pid)) else { continue };
        let (found, signalled) = (Server::find(pid, start), server.signal(libc::SIGKILL));
        let its_own = start_time(other).and_then(|start| Server::find(other, start)).is_some_and(|it| it.is_alive());
        end(other);
        assert_eq!(other, pid);
        assert!(found.is_none() && !server.is_alive());
        assert_eq!(signalled.map_err(|error| error.raw_os_error()), Err(Some(libc::ESRCH)));
        assert!(its_own, "the other was not touched");
        return;
    }
    panic!("no number could be used again");
}

#[test]
fn a_server_whose_first_thread_has_ended_is_alive() {
    const STACK: usize = 64 * 1024;
    let mut stack = vec![0_u8; STACK];
    let top = stack.as_mut_ptr_range().end.cast::<libc::c_void>();
    let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    // SAFETY: the child makes system calls only, on memory of its own.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: the stack is the thread's alone; it and the first thread do nothing but sleep and end.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::clone(sleep_on, top, thread, std::ptr::null_mut());
            libc::syscall(libc::SYS_exit, 0);
        }
    }
    assert!(pid > 0, "fork: {}", io::Error::last_os_error());
    let start = start_time(pid).expect("there");
    let is_zombie = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    while !is_zombie() {
        std::thread::yield_now();
    }
    let server = Server::find(pid, start).expect("a thread of it lives");
    assert!(server.is_alive());
    server.signal(libc::SIGKILL).expect("it lives");
    assert!(server.wait_end(Duration::from_secs(10)), "only a zombie is left");
    assert!(Server::find(pid, start).is_none());
    end(pid);
}
