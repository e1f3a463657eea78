//! Which system calls an agent may make, and that real programs get by with them.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod sandboxed;

use std::process::{Command, Stdio};

use pipelock_e2e::{find, missing};
use sandboxed::{agent, run, said, unique};

/// Makes raw system calls and prints `name errno` for each; 0 is success.
const CALLS: &str = r#"
import ctypes, errno, os, platform, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(name, nr, *args):
    ctypes.set_errno(0)
    rc = libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if rc == 0 and nr == CLONE: os._exit(0)  # a child that should not be
    print(name, errno.errorcode.get(ctypes.get_errno(), "?") if rc == -1 else "OK", flush=True)
    return rc
arm = platform.machine() == "aarch64"
nr = (lambda x86, a64: a64 if arm else x86)
SOCKET, SOCKETPAIR, UNSHARE, CLONE = nr(41, 198), nr(53, 199), nr(272, 97), nr(56, 220)
for family in range(0, 46):
    call("family%d" % family, SOCKET, family, 2, 0)
call("high_bits", SOCKET, (1 << 32) | 17, 2, 0)
call("pair_tipc", SOCKETPAIR, 30, 1, 0, 0)
for protocol in range(0, 22):
    call("netlink%d" % protocol, SOCKET, 16, 3, protocol)
for name, number in dict(setns=nr(308, 268), bpf=nr(321, 280), perf=nr(298, 241), userfaultfd=nr(323, 282),
        mount=nr(165, 40), umount2=nr(166, 39), pivot_root=nr(155, 41), open_tree=428, open_tree_attr=467, move_mount=429, fsopen=430,
        fsconfig=431, fsmount=432, fspick=433, mount_setattr=442, init_module=nr(175, 105), finit_module=nr(313, 273),
        kexec_load=nr(246, 104), kexec_file_load=nr(320, 294), add_key=nr(248, 217), request_key=nr(249, 218),
        keyctl=nr(250, 219), pidfd_getfd=438, io_uring_setup=425, io_uring_enter=426, io_uring_register=427,
        clone3=435).items():
    call(name, number, 0, 0, 0, 0, 0, 0)
NEWUSER, NEWNET, NEWNS, SIGCHLD = 0x10000000, 0x40000000, 0x20000, 17
for name, flags in dict(user=NEWUSER, net=NEWNET, both=NEWUSER | NEWNET, user_high=(1 << 32) | NEWUSER, user_ns=NEWUSER | NEWNS).items():
    call("unshare_" + name, UNSHARE, flags)
    call("clone_" + name, CLONE, flags | SIGCHLD, 0, 0, 0, 0)
call("tiocsti", nr(16, 29), 0, 0x5412, b"x")
call("tiocsti_high", nr(16, 29), 0, (1 << 32) | 0x5412, b"x")
if not arm:
    call("x32_socket", 0x40000000 | SOCKET, 17, 2, 0)
    call("x32_getpid", 0x40000000 | 39)
outside = int(sys.argv[1])
call("ptrace_outside", nr(101, 117), 16, outside, 0, 0)
call("kill_outside", nr(62, 129), outside, 0)
def cannot_read(path):
    try: open(path).read(); return False
    except OSError: return True
print("mem_outside", "EACCES" if cannot_read("/proc/%d/environ" % outside) else "OK")
child = os.fork()
if child == 0:
    time.sleep(60); os._exit(0)
call("ptrace_child", nr(101, 117), 16, child, 0, 0)
os.kill(child, 9)
a = socket.socket(socket.AF_UNIX)
try: a.connect("\0" + sys.argv[2]); print("abstract OK")
except OSError as e: print("abstract", errno.errorcode[e.errno])
"#;

/// A process outside, of the agent's user; ends with the test, also when that fails.
struct Outside(std::process::Child);

impl Outside {
    fn new() -> Self {
        let mut command = Command::new("sleep");
        std::os::unix::process::CommandExt::uid(command.arg("1000").stdout(Stdio::null()), 65534);
        Self(command.spawn().expect("sleep"))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_the_table_denies_is_denied_and_nothing_else() {
    // An outside process of the agent's user, to trace and to signal; and an outside abstract socket.
    let outside = Outside::new();
    let name = unique("abstract");
    let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name)
        .expect("name");
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).expect("bind");
    let evidence = tempfile::NamedTempFile::new().expect("file");
    let output = agent(&["/usr/bin/python3", "-c", CALLS, &outside.0.id().to_string(), &name])
        .env("PIPELOCK_EVIDENCE", evidence.path())
        .stdin(Stdio::null())
        .output()
        .expect("run");
    let text = said(&output);
    let answer = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}\n{}", String::from_utf8_lossy(&output.stderr))).to_owned()
    };
    for family in 0..46 {
        let expected = if [1, 2, 10, 16].contains(&family) { "OK" } else { "EAFNOSUPPORT" };
        assert_eq!(answer(&format!("family{family}")), expected, "family {family}");
    }
    for protocol in 0..22 {
        let expected = if protocol == 0 { "OK" } else { "EPROTONOSUPPORT" };
        assert_eq!(answer(&format!("netlink{protocol}")), expected, "netlink {protocol}");
    }
    for denied in [
        "setns",
        "bpf",
        "perf",
        "userfaultfd",
        "mount",
        "umount2",
        "pivot_root",
        "open_tree",
        "open_tree_attr",
        "move_mount",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
        "init_module",
        "finit_module",
        "kexec_load",
        "kexec_file_load",
        "add_key",
        "request_key",
        "keyctl",
        "pidfd_getfd",
        "unshare_user",
        "unshare_net",
        "unshare_both",
        "unshare_user_high",
        "unshare_user_ns",
        "clone_user",
        "clone_net",
        "clone_both",
        "clone_user_high",
        "clone_user_ns",
        "tiocsti",
        "tiocsti_high",
        "ptrace_outside",
    ] {
        assert_eq!(answer(denied), "EPERM", "{denied}");
    }
    for missing in ["io_uring_setup", "io_uring_enter", "io_uring_register", "clone3"] {
        assert_eq!(answer(missing), "ENOSYS", "{missing}");
    }
    assert_eq!((answer("high_bits"), answer("pair_tipc")), ("EAFNOSUPPORT".into(), "EAFNOSUPPORT".into()));
    if cfg!(target_arch = "x86_64") {
        assert_eq!((answer("x32_socket"), answer("x32_getpid")), ("ENOSYS".into(), "ENOSYS".into()));
    }
    let evidence = std::fs::read_to_string(evidence.path()).expect("evidence");
    if evidence.contains("landlock: true") {
        assert_eq!((answer("mem_outside"), answer("ptrace_child")), ("EACCES".into(), "OK".into()));
    } else {
        assert_eq!(answer("ptrace_child"), "EPERM");
    }
    if evidence.contains("landlock_scoped: true") {
        assert_eq!((answer("kill_outside"), answer("abstract")), ("EPERM".into(), "EPERM".into()));
    }
}

/// Without the filter the same program gets further: the test above can fail.
#[test]
fn the_filter_is_what_denies() {
    let output = agent(&["/usr/bin/python3", "-c", "import socket; socket.socket(40, 1); print('vsock')"])
        .env("PIPELOCK_NO_SECCOMP", "1")
        .output()
        .expect("run");
    assert!(said(&output).contains("vsock"), "{output:?}");
}

/// `int 0x80` reaches the 32-bit calls, which have other numbers.
#[test]
fn another_abi_is_killed() {
    if !cfg!(target_arch = "x86_64") {
        println!("SKIP: x86_64 only");
        return;
    }
    let program = "import ctypes, mmap; m = mmap.mmap(-1, 4096, prot=7); m.write(b'\\x53\\xb8\\x14\\0\\0\\0\\xcd\\x80\\x5b\\xc3'); \
                   f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m))); print('pid', f())";
    let open = agent(&["/usr/bin/python3", "-c", program]).env("PIPELOCK_NO_SECCOMP", "1").output().expect("run");
    if !said(&open).contains("pid") {
        println!("SKIP: this kernel has no 32-bit calls");
        return;
    }
    let (text, code) = run(&["/usr/bin/python3", "-c", program]);
    assert_eq!((text.contains("pid"), code), (false, 128 + libc::SIGSYS), "{text}");
}

#[test]
fn real_programs_start_under_the_filter() {
    let folder = tempfile::tempdir().expect("tempdir");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    let java = folder.path().join("Hello.java");
    let source = "public class Hello { public static void main(String[] a) throws Exception { \
                  var t = new Thread(() -> System.out.println(\"java\")); t.start(); t.join(); \
                  System.out.println(java.util.Collections.list(java.net.NetworkInterface.getNetworkInterfaces()).size() > 0); \
                  new ProcessBuilder(\"true\").start().waitFor(); } }";
    std::fs::write(&java, source).expect("write");
    let home = folder.path().display();
    let cases = [
        ("bash", "bash -c 'echo $(echo bash | cat)'".to_owned(), "bash"),
        (
            "python3",
            "python3 -c 'import subprocess, threading, asyncio; t = threading.Thread(target=print, args=(\"python\",)); t.start(); t.join(); subprocess.run([\"true\"], check=True); asyncio.run(asyncio.sleep(0))'".to_owned(),
            "python",
        ),
        (
            "node",
            "node -e 'require(\"fs\").readFile(\"/etc/hostname\", () => require(\"child_process\").exec(\"echo node\", (e, o) => { console.log(o); require(\"os\").networkInterfaces() }))'".to_owned(),
            "node",
        ),
        ("go", format!("cd {home} && GOCACHE={home}/go GOFLAGS=-mod=mod go version && GOCACHE={home}/go go env GOOS"), "linux"),
        ("java", format!("java -XX:TieredStopAtLevel=1 {home}/Hello.java"), "java\ntrue"),
        ("git", format!("git init -q {home}/repo && git -C {home}/repo status -s -b && echo git"), "git"),
        ("curl", format!("curl -sS file://{home}/Hello.java | head -c 6; curl -sS --max-time 2 http://127.0.0.1:1/ 2>&1"), "Could not connect"),
    ];
    for (program, script, expected) in cases {
        let Some(path) = find(program) else {
            missing(program);
            continue;
        };
        let output = agent(&[
            "sh",
            "-c",
            &format!("export HOME={home} PATH=$PATH:{}; {script}", path.parent().expect("a folder").display()),
        ])
        .output()
        .expect("run");
        let text = said(&output);
        let found = text.contains(expected) || text.contains("Failed to connect");
        assert!(found, "{program}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}
