//! `setup`: finds what a Debian or Ubuntu lacks for a task and installs it; what is there is left alone.
//!
//! Also called by the tasks themselves, so that none of them needs anything else first.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// The LLVM that bpf-linker is built with: not older than that of the distribution's rustc.
const LLVM: &str = "22";
const BPF_LINKER: &str = "0.13.0";
/// Where the end-to-end tests find Python modules that the system may lack; every user can read it.
const PYTHON_FOLDER: &str = "/var/cache/pipelock-e2e/python";
/// What agents written in Python fetch with: modules, and the packages that bring them.
const PYTHON_MODULES: &[(&str, &str)] = &[
    ("aiohttp", "aiohttp"),
    ("grpc", "grpcio"),
    ("h2", "httpx[http2]"),
    ("httpx", "httpx[http2]"),
    // The second's names are others than the first's.
    ("mcp.server.mcpserver", "mcp>=2,<3"),
    ("requests", "requests"),
    // Older ones hear no HTTPS_PROXY.
    ("websockets.proxy", "websockets>=16"),
];
/// Where they find packages of npm; every user can read it.
const NODE_FOLDER: &str = "/var/cache/pipelock-e2e/node";
/// What agents written in JavaScript fetch with, and their major versions, which are for Node.js 20.
const NODE_PACKAGES: &[(&str, &str)] = &[("https-proxy-agent", "7"), ("undici", "6"), ("ws", "8")];
/// Where they find the tester of the Scan API, and its version: the same each time, or the test would not be.
const SCHEMATHESIS_FOLDER: &str = "/var/cache/pipelock-e2e/schemathesis";
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// The system's Python: one that lives in somebody's home is closed to the user an agent runs as.
const PYTHON: &str = "/usr/bin/python3";

/// Install what is missing: for building and the demo; for the end-to-end tests; for the kernel programs.
///
/// As root with apt-get; otherwise prints the one command to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also what the end-to-end tests drive: clients in every language.
    #[arg(long)]
    e2e: bool,
    /// Also the toolchain for `build-ebpf`.
    #[arg(long)]
    ebpf: bool,
}

/// One thing that a task needs.
struct Need {
    name: &'static str,
    /// Debian packages that bring it.
    packages: &'static [&'static str],
    is_there: fn() -> bool,
}

macro_rules! program {
    ($name:literal, $($package:literal),+) => {
        Need { name: $name, packages: &[$($package),+], is_there: || run::has($name) }
    };
}

/// For building on stable Rust, and for the demo.
const BASE: &[Need] = &[
    program!("cc", "gcc", "libc6-dev"),
    Need { name: "C headers", packages: &["libc6-dev"], is_there: || Path::new("/usr/include/stdio.h").exists() },
    Need {
        name: "CA certificates",
        packages: &["ca-certificates"],
        is_there: || Path::new("/etc/ssl/certs/ca-certificates.crt").exists(),
    },
    // Vectorscan, the matcher of the scan engine, is C++.
    program!("c++", "g++"),
    program!("cmake", "cmake"),
    program!("pkg-config", "pkg-config"),
    Need {
        name: "Boost headers",
        packages: &["libboost-dev"],
        is_there: || Path::new("/usr/include/boost/version.hpp").exists(),
    },
    program!("curl", "curl"),
    program!("git", "git"),
    program!("openssl", "openssl"),
    Need { name: "python3", packages: &["python3"], is_there: || Path::new(PYTHON).exists() },
    Need { name: "pip", packages: &["python3-pip"], is_there: || python_has("pip") },
];

/// For the end-to-end tests.
const E2E: &[Need] = &[
    Need { name: "venv", packages: &["python3-venv"], is_there: || python_has("ensurepip") },
    program!("wget", "wget"),
    program!("ip", "iproute2"),
    program!("unshare", "util-linux"),
    // What scrapes the metrics, and what checks them.
    program!("prometheus", "prometheus"),
    program!("promtool", "prometheus"),
    // Next hops.
    program!("squid", "squid-openssl"),
    program!("microsocks", "microsocks"),
    program!("ssh", "openssh-client"),
    program!("sshd", "openssh-server"),
    program!("node", "nodejs"),
    program!("npm", "npm"),
    program!("chromium", "chromium"),
    // Tells it whom to trust.
    program!("certutil", "libnss3-tools"),
    program!("java", "default-jdk-headless"),
    program!("javac", "default-jdk-headless"),
    Need {
        name: "go",
        packages: &["golang-go"],
        is_there: || run::has("go") || Path::new("/usr/local/go/bin/go").exists(),
    },
];

/// For `build-ebpf`.
const EBPF: &[Need] = &[
    Need {
        name: "a compiler for BPF",
        packages: &["rustc-web", "libstd-rust-web-dev-bpf"],
        is_there: || Path::new("/usr/lib/rustlib/bpfel-unknown-none").exists() || nightly_has_sources(),
    },
    Need {
        name: "LLVM",
        packages: &["llvm-22", "llvm-22-dev", "libpolly-22-dev", "libclang-22-dev"],
        is_there: || {
            Path::new("/usr/lib/llvm-22/include/llvm-c").exists()
                && Path::new("/usr/lib/llvm-22/lib/libPolly.a").exists()
                && run::has("llvm-objcopy-22")
        },
    },
    Need { name: "C++", packages: &["g++"], is_there: || run::has("c++") },
    Need { name: "zlib", packages: &["zlib1g-dev"], is_there: || Path::new("/usr/include/zlib.h").exists() },
    Need { name: "zstd", packages: &["libzstd-dev"], is_there: || Path::new("/usr/include/zstd.h").exists() },
];

/// For `vm`.
const VM: &[Need] = &[
    program!("qemu-system-x86_64", "qemu-system-x86"),
    Need {
        name: "a busybox that needs no libraries",
        packages: &["busybox-static"],
        is_there: || run::find("busybox").is_some_and(|file| is_static(&file)),
    },
    program!("cpio", "cpio"),
];

pub(crate) fn main(args: &Args) -> Result<()> {
    install(args.e2e, args.ebpf)
}

/// What building and the demo need.
pub(crate) fn base() -> Result<()> {
    install(false, false)
}

/// What building, the demo and the end-to-end tests need.
pub(crate) fn e2e() -> Result<()> {
    install(true, false)
}

/// What booting other kernels needs.
pub(crate) fn vm() -> Result<()> {
    packages(&BASE.iter().chain(VM).collect::<Vec<_>>())
}

fn is_static(program: &Path) -> bool {
    Command::new("ldd").arg(program).output().is_ok_and(|done| !done.status.success())
}

fn install(e2e: bool, ebpf: bool) -> Result<()> {
    let mut needs: Vec<&Need> = BASE.iter().collect();
    needs.extend(E2E.iter().filter(|_| e2e));
    needs.extend(EBPF.iter().filter(|_| ebpf));
    packages(&needs)?;
    components()?;
    if e2e {
        python_modules()?;
        node_packages()?;
        schemathesis()?;
    }
    if ebpf {
        bpf_linker()?;
    }
    run::say("setup: everything is there");
    Ok(())
}

fn python_has(module: &str) -> bool {
    // Found, not imported: importing pip takes a second.
    let code = format!("import importlib.util as u, sys; sys.exit(u.find_spec('{module}') is None)");
    Command::new(PYTHON).args(["-c", &code]).status().is_ok_and(|status| status.success())
}

/// True when rustup's nightly can build `core` itself.
fn nightly_has_sources() -> bool {
    let sysroot = Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output();
    let sysroot = sysroot.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned()).unwrap_or_default();
    !sysroot.is_empty() && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir()
}

/// Installs the packages of what is missing.
fn packages(needs: &[&Need]) -> Result<()> {
    let missing: Vec<_> = needs.iter().filter(|need| !(need.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|need| need.name).collect::<Vec<_>>().join(", ");
    let mut packages: Vec<_> = missing.iter().flat_map(|need| need.packages).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !is_debian(&os) {
        bail!("missing: {names}. Setup knows Debian and Ubuntu only; their packages are: {}", packages.join(" "));
    }
    if !run::is_root() {
        bail!(
            "missing: {names}. Run\n  sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends {}'",
            packages.join(" ")
        );
    }
    run::say(&format!("setup: missing: {names}; installing {}", packages.join(" ")));
    run::check(apt().args(["update", "-q"]))?;
    run::check(apt().args(["install", "-y", "-q", "--no-install-recommends"]).args(&packages))?;
    if packages.contains(&"openssh-server") && Path::new("/run/systemd/system").exists() {
        // Wanted is the program: its package starts a service that lets people in, which nobody has asked for.
        run::check(Command::new("systemctl").args(["disable", "--now", "ssh.service", "ssh.socket"]))?;
    }
    if let Some(need) = missing.iter().find(|need| !(need.is_there)()) {
        bail!("{} is still missing although {} is installed", need.name, need.packages.join(" "));
    }
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-o",
        "DPkg::Lock::Timeout=300",
        "-o",
        "Acquire::Retries=3",
    ]);
    command
}

fn is_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split(' '))
        .any(|word| word == "debian" || word == "ubuntu")
}

/// rustfmt and clippy, which a minimal rustup leaves out.
fn components() -> Result<()> {
    if run::has("cargo-fmt") && run::has("cargo-clippy") && run::has("rustfmt") {
        return Ok(());
    }
    if !run::has("rustup") {
        bail!("rustfmt or clippy is missing; install them from where your Rust comes");
    }
    run::check(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))
}

/// HTTP clients for Python, installed once.
fn python_modules() -> Result<()> {
    let (modules, packages): (Vec<&str>, Vec<&str>) = PYTHON_MODULES.iter().copied().unzip();
    let imports = format!("import {}", modules.join(", "));
    let is_whole = || {
        let mut python = Command::new(PYTHON);
        let done = python.args(["-c", &imports]).env("PYTHONPATH", PYTHON_FOLDER).output();
        done.is_ok_and(|done| done.status.success())
    };
    if is_whole() {
        return Ok(());
    }
    let mut pip = Command::new(PYTHON);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--upgrade",
        "--target",
        PYTHON_FOLDER,
    ])
    .args(&packages);
    if !run::is_root() {
        bail!("missing: {} for Python. Run\n  sudo {}", packages.join(", "), run::shown(&pip));
    }
    run::say(&format!("setup: installing {} into {PYTHON_FOLDER}", packages.join(", ")));
    std::fs::create_dir_all(PYTHON_FOLDER).context(PYTHON_FOLDER)?;
    run::check(&mut pip)?;
    if !is_whole() {
        bail!("{PYTHON_FOLDER} lacks one of {}", modules.join(", "));
    }
    Ok(())
}

/// HTTP clients for Node.js, installed once.
fn node_packages() -> Result<()> {
    let missing = || -> Vec<String> {
        let is_there = |name: &str, major: &str| {
            let file = Path::new(NODE_FOLDER).join("node_modules").join(name).join("package.json");
            let about =
                std::fs::read(file).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
            about
                .is_some_and(|about| about["version"].as_str().is_some_and(|has| has.starts_with(&format!("{major}."))))
        };
        let lacking = NODE_PACKAGES.iter().filter(|(name, major)| !is_there(name, major));
        lacking.map(|(name, major)| format!("{name}@{major}")).collect()
    };
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
        "--ignore-scripts",
        "--prefix",
        NODE_FOLDER,
    ])
    .args(&packages);
    if !run::is_root() {
        bail!("missing: {} for Node.js. Run\n  sudo {}", packages.join(", "), run::shown(&npm));
    }
    run::say(&format!("setup: installing {} into {NODE_FOLDER}", packages.join(", ")));
    std::fs::create_dir_all(NODE_FOLDER).context(NODE_FOLDER)?;
    run::check(&mut npm)?;
    if !missing().is_empty() {
        bail!("{NODE_FOLDER} lacks one of {}", packages.join(", "));
    }
    Ok(())
}

/// The tester of the Scan API, with a Python environment of its own.
fn schemathesis() -> Result<()> {
    let pip = Path::new(SCHEMATHESIS_FOLDER).join("bin/pip");
    let version = SCHEMATHESIS.rsplit('=').next().unwrap_or_default();
    let mut shown = Command::new(&pip);
    if shown.args(["show", "schemathesis"]).output().is_ok_and(|shown| {
        shown.status.success() && String::from_utf8_lossy(&shown.stdout).contains(&format!("Version: {version}\n"))
    }) {
        return Ok(());
    }
    let mut install = Command::new(&pip);
    install.args(["install", "--quiet", "--disable-pip-version-check", SCHEMATHESIS]);
    if !run::is_root() {
        bail!(
            "missing: {SCHEMATHESIS}. Run\n  sudo {PYTHON} -m venv {SCHEMATHESIS_FOLDER} && sudo {}",
            run::shown(&install)
        );
    }
    run::say(&format!("setup: installing {SCHEMATHESIS} into {SCHEMATHESIS_FOLDER}"));
    run::check(Command::new(PYTHON).args(["-m", "venv", SCHEMATHESIS_FOLDER]))?;
    run::check(&mut install)
}

fn bpf_linker() -> Result<()> {
    if let Some(linker) = run::find("bpf-linker")
        && run::output(Command::new(linker).arg("--version"))?.contains(BPF_LINKER)
    {
        return Ok(());
    }
    run::say("setup: building bpf-linker");
    let mut cargo = run::cargo();
    cargo
        .args(["install", "--locked", "--no-default-features", "--features"])
        .arg(format!("llvm-{LLVM}"))
        .args(["--version", BPF_LINKER, "bpf-linker"])
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"));
    run::check(&mut cargo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_what_is_like_it() {
        assert!(is_debian("NAME=\"Debian\"\nID=debian\n"));
        assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\nVARIANT_ID=debian\n"));
    }
}
