//! `vm`: boots pipelock on older kernels, whose verifiers are stricter than this machine's.
//!
//! A kernel of the distribution, a busybox and the binary are all there is inside: no disk, no network but loopback. What
//! the machine prints on its serial line is the result. Emulated, so it needs no KVM and runs in CI.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{run, setup};

/// The oldest kernel that is supported, and the long-term one after it.
const SERIES: [&str; 2] = ["6.1.", "6.12."];
/// How long a boot and the test may take, in seconds: about 15 under emulation.
const LIMIT: &str = "180";
const POLICY: &str = r#"version: "1.0"
egress:
  - destination: "web.test"
    methods: ["GET"]
    paths: ["/a.txt"]
    ports: [8081]
    # Not TLS: there is no bundle of root certificates inside.
    protocol: "http"
    scan: false
dns:
  hosts:
    web.test: 127.0.0.1
ssrf:
  allow: ["127.0.0.0/8"]
default_deny: true
dns_resolution: "proxy_only"
"#;
/// What the machine does; the lines that begin with "vm:" are its result.
const INIT: &str = r#"#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs t /tmp; mount -t tmpfs t /run
mount -t cgroup2 none /sys/fs/cgroup; mount -t bpf bpf /sys/fs/bpf; ip link set lo up; chmod 1777 /tmp
mkdir -p /tmp/www; echo hello-vm > /tmp/www/a.txt; echo no > /tmp/www/b.txt
httpd -p 127.0.0.1:8081 -h /tmp/www
cd /tmp
echo "vm: kernel $(uname -r)"
pipelock run --policy /etc/policy.yaml --evidence /tmp/evidence -- sh -c '
  [ "$(wget -q -O - http://web.test:8081/a.txt)" = hello-vm ] && echo "vm: allowed"
  wget -q -O - http://web.test:8081/b.txt || echo "vm: path denied"
  nc -w 5 127.0.0.1 8081 < /dev/null || echo "vm: host service denied"
  nc -w 5 198.18.0.9 99 < /dev/null || echo "vm: port denied"
  ping -c 1 -W 5 127.0.0.1 || echo "vm: ping denied"
  exit 7'
echo "vm: exit code $?"
pipelock verify /tmp/evidence --public-key /tmp/evidence/public-key.pem && echo "vm: valid"
grep -q '"level":"full"' /tmp/evidence/evidence.jsonl && grep -q '"missing_hooks":\[\]' /tmp/evidence/evidence.jsonl \
  && echo "vm: every hook"
# That something failed says little; why it failed is in the evidence.
for reason in policy_allow path_denied loopback_denied port_denied socket_denied; do
  grep -q "\"pattern\":\"$reason\"" /tmp/evidence/evidence.jsonl || echo "vm: no receipt says $reason"
done
grep -c . /tmp/evidence/evidence.jsonl >/dev/null && echo "vm: receipts were looked at"
[ -z "$(ls /sys/fs/bpf/pipelock 2>/dev/null)" ] && echo "vm: nothing left behind"
poweroff -f
"#;
const EXPECTED: [&str; 10] = [
    "allowed",
    "path denied",
    "host service denied",
    "port denied",
    "ping denied",
    "exit code 7",
    "valid",
    "every hook",
    "receipts were looked at",
    "nothing left behind",
];

/// Boot the kernels that are supported at least, in an emulator, and run and verify a session on each.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A kernel image (vmlinuz) to boot instead; may be given again.
    #[arg(long, value_name = "FILE")]
    kernel: Vec<PathBuf>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    setup::vm()?;
    let pipelock = run::build_pipelock()?;
    let folder = run::target_dir()?.join("vm");
    fs::create_dir_all(&folder)?;
    let kernels = if args.kernel.is_empty() {
        SERIES.iter().map(|series| kernel(series, &folder)).collect::<Result<Vec<_>>>()?
    } else {
        args.kernel.clone()
    };
    let initramfs = initramfs(&pipelock, &folder)?;
    let mut failed = 0;
    for kernel in kernels {
        let said = boot(&kernel, &initramfs)?;
        let results: Vec<_> = said.lines().filter_map(|line| Some(line.trim_end().split_once("vm: ")?.1)).collect();
        let version = results.iter().find_map(|line| line.strip_prefix("kernel ")).unwrap_or("did not boot");
        let lacking = results.iter().copied().filter(|line| line.starts_with("no receipt"));
        let missing: Vec<_> =
            EXPECTED.into_iter().filter(|expected| !results.contains(expected)).chain(lacking).collect();
        if missing.is_empty() {
            run::line(&format!("{version}: {}", EXPECTED.join(", ")));
        } else {
            failed += 1;
            run::say(&said);
            run::line(&format!("{version}: MISSING {}", missing.join(", ")));
        }
    }
    if failed > 0 {
        bail!("{failed} kernels failed; what they printed is above");
    }
    Ok(())
}

/// The newest kernel of a series that the package manager knows, unpacked below `folder`.
fn kernel(series: &str, folder: &Path) -> Result<PathBuf> {
    let pattern = format!("^linux-image-{}.*-cloud-amd64$", series.replace('.', r"\."));
    let names = run::output(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    let names = names.lines().filter_map(|line| line.split_whitespace().next());
    let package = names.max_by_key(|name| numbers(name)).with_context(|| {
        format!("no package linux-image-{series}*-cloud-amd64 is known to apt; give an image with --kernel")
    })?;
    let unpacked = folder.join(package);
    if !unpacked.exists() {
        run::say(&format!("fetching {package}"));
        run::check(Command::new("apt-get").args(["download", "-q", package]).current_dir(folder))?;
        let fetched = run::files(folder)?.into_iter().find(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        });
        let fetched = fetched.with_context(|| format!("apt-get left no file of {package}"))?;
        // Under its name only once it is whole: what was cut short is not to be taken for done.
        let part = folder.join(format!("{package}.part"));
        let _ = fs::remove_dir_all(&part);
        run::check(Command::new("dpkg-deb").arg("--extract").arg(&fetched).arg(&part))?;
        fs::rename(&part, &unpacked)?;
        fs::remove_file(fetched)?;
    }
    let images = run::files(&unpacked.join("boot"))?;
    let image = images
        .into_iter()
        .find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
    image.with_context(|| format!("{package} holds no kernel image"))
}

/// Packs busybox, the binary with its libraries, and what they do.
fn initramfs(pipelock: &Path, folder: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    let _ = fs::remove_dir_all(&root);
    for name in ["bin", "etc", "proc", "sys", "dev", "run", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    let busybox = run::find("busybox").context("busybox")?;
    fs::copy(&busybox, root.join("bin/busybox"))?;
    let applets = [
        "sh", "mount", "mkdir", "chmod", "cat", "ls", "grep", "uname", "wget", "nc", "ping", "ip", "httpd", "poweroff",
    ];
    for applet in applets {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::copy(pipelock, root.join("bin/pipelock"))?;
    for library in libraries(pipelock)? {
        let inside = root.join(library.strip_prefix("/").unwrap_or(&library));
        fs::create_dir_all(inside.parent().context("a library at the root")?)?;
        fs::copy(&library, inside)?;
    }
    for (name, text) in [
        ("etc/passwd", "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("etc/resolv.conf", "nameserver 192.0.2.53\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        ("etc/policy.yaml", POLICY),
        ("init", INIT),
    ] {
        fs::write(root.join(name), text)?;
    }
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let archive = folder.join("initramfs.gz");
    let pack = "find . | cpio --quiet -o -H newc | gzip -1 > ../initramfs.gz";
    run::check(Command::new("sh").args(["-c", pack]).current_dir(&root))?;
    Ok(archive)
}

/// What the dynamic loader would load for this binary, the loader included, and the C library's name services.
fn libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    let listed = run::output(Command::new("ldd").arg(binary))?;
    let mut paths: Vec<PathBuf> =
        listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect();
    let libc = paths.iter().find(|path| path.file_name().is_some_and(|name| name == "libc.so.6")).cloned();
    let beside = libc.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let more = ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"].map(|name| beside.join(name));
    paths.extend(more.into_iter().filter(|path| path.exists()));
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// Boots a kernel and returns what it printed until it switched itself off.
fn boot(kernel: &Path, initramfs: &Path) -> Result<String> {
    run::say(&format!("booting {}", kernel.display()));
    let mut command = Command::new("timeout");
    command
        .args([LIMIT, "qemu-system-x86_64", "-accel", "tcg", "-m", "1024", "-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet panic=1"])
        .stdin(Stdio::null());
    let done = command.output().with_context(|| run::shown(&command))?;
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
