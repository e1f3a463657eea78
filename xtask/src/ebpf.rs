//! `build-ebpf`: builds the kernel programs and checks in the object that pipelock-user embeds.
//!
//! The same toolchain makes the same bytes wherever the checkout lies: no path of the machine gets into the object. A
//! test in this file fails when the sources changed since the object was built; it needs no BPF toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::run;

/// The object that logs: for this machine only, never checked in.
const DEBUG_OBJECT: &str = "pipelock-ebpf/pipelock-debug.bpf.o";
/// The object, checked in.
const OBJECT: &str = "pipelock-ebpf/pipelock.bpf.o";
/// What the object was built from and by, checked in.
const STAMP: &str = "pipelock-ebpf/pipelock.bpf.sha256";
/// Everything that the object is made from.
const SOURCES: &[&str] = &[
    "pipelock-common/Cargo.toml",
    "pipelock-common/src",
    "pipelock-ebpf/Cargo.lock",
    "pipelock-ebpf/Cargo.toml",
    "pipelock-ebpf/src",
];
const TARGET: &str = "bpfel-unknown-none";
/// What a distribution installs its compiler as; another rustc in PATH is rustup's.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// Build the kernel programs from source and replace the object that is checked in.
///
/// Takes a distribution's rustc with its BPF library, or rustup's nightly with rust-src, and bpf-linker: see
/// `cargo xtask setup --ebpf`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build, but only say whether the result is what is checked in.
    #[arg(long)]
    check: bool,
    /// Which compiler.
    #[arg(long, value_enum, default_value = "auto")]
    toolchain: Which,
    /// Build the object that logs every decision through aya-log instead, beside the one that is checked in.
    #[arg(long, conflicts_with = "check")]
    debug: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// The distribution's if it is there, else nightly.
    Auto,
    /// The distribution's rustc, which comes with a library for BPF.
    Distribution,
    /// rustup's nightly, which builds the library from rust-src.
    Nightly,
}

/// The two ways to get `core` for BPF.
enum Toolchain {
    Distribution,
    Nightly { sysroot: PathBuf },
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let toolchain = Toolchain::find(args.toolchain)?;
    if args.debug {
        let built = build(&toolchain, Some("debug-ebpf"))?;
        std::fs::write(run::root().join(DEBUG_OBJECT), &built).context(DEBUG_OBJECT)?;
        run::line(&format!(
            "{DEBUG_OBJECT}: {} bytes; embed it with: cargo build --package pipelock-user --features debug-ebpf",
            built.len()
        ));
        return Ok(());
    }
    let built = build(&toolchain, None)?;
    no_paths_of_this_machine(&built)?;
    no_hashed_names(&built)?;
    let stamp = Stamp { sources: digest_sources()?, object: hex(&Sha256::digest(&built)), built_by: toolchain.name()? };
    let root = run::root();
    if args.check {
        let there = std::fs::read(root.join(OBJECT)).context(OBJECT)?;
        let was = std::fs::read_to_string(root.join(STAMP)).context(STAMP)?;
        ensure!(
            there == built,
            "{OBJECT} is not what its sources make here.\nchecked in:\n{was}built now:\n{}",
            stamp.render()
        );
        ensure!(was.contains(&stamp.sources), "{STAMP} is not of these sources; run cargo xtask build-ebpf");
        run::line(&format!("{OBJECT} is what its sources make"));
        return Ok(());
    }
    std::fs::write(root.join(OBJECT), &built).context(OBJECT)?;
    std::fs::write(root.join(STAMP), stamp.render()).context(STAMP)?;
    run::line(&format!("{OBJECT}: {} bytes, {}", built.len(), stamp.built_by));
    Ok(())
}

/// What the object was built from and by, as it is checked in.
struct Stamp {
    sources: String,
    object: String,
    built_by: String,
}

impl Stamp {
    fn render(&self) -> String {
        format!("sources {}\nobject {}\nbuilt-by {}\n", self.sources, self.object, self.built_by)
    }
}

impl Toolchain {
    fn find(which: Which) -> Result<Self> {
        let distribution = || {
            let sysroot = run::output(Command::new(DISTRIBUTION_RUSTC).args(["--print", "sysroot"])).ok()?;
            Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).is_dir().then_some(Self::Distribution)
        };
        let nightly = || {
            let mut rustup = Command::new("rustup");
            let sysroot = run::output(rustup.args(["run", "nightly", "rustc", "--print", "sysroot"])).ok()?;
            let sysroot = PathBuf::from(sysroot.trim());
            sysroot.join("lib/rustlib/src/rust/library/core").is_dir().then_some(Self::Nightly { sysroot })
        };
        let found = match which {
            Which::Auto => distribution().or_else(nightly),
            Which::Distribution => distribution(),
            Which::Nightly => nightly(),
        };
        found.context("no compiler that builds for BPF; run cargo xtask setup --ebpf")
    }

    fn name(&self) -> Result<String> {
        let rustc = match self {
            Self::Distribution => run::output(Command::new(DISTRIBUTION_RUSTC).arg("--version"))?,
            Self::Nightly { .. } => run::output(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]))?,
        };
        let linker = run::output(Command::new(linker()?).arg("--version"))?;
        Ok(format!("{}, {}", rustc.trim(), linker.trim()))
    }

    /// The cargo that goes with it.
    fn cargo(&self) -> Command {
        match self {
            Self::Distribution => {
                let mut cargo = run::cargo();
                // The library of the target was built by exactly this compiler; aya-ebpf needs its unstable features.
                cargo.env("RUSTC", DISTRIBUTION_RUSTC).env("RUSTC_BOOTSTRAP", "1").args(["build"]);
                cargo
            }
            Self::Nightly { .. } => {
                let mut cargo = Command::new("rustup");
                cargo.env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
                cargo.args(["run", "nightly", "cargo", "build", "-Zbuild-std=core"]);
                cargo
            }
        }
    }
}

fn build(toolchain: &Toolchain, feature: Option<&str>) -> Result<Vec<u8>> {
    let root = run::root();
    let target = run::target_dir()?.join("ebpf");
    let mut flags: Vec<String> = [
        "--cfg=bpf_target_arch=\"x86_64\"",
        "-Ctarget-cpu=v3",
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Clink-arg=--disable-expand-memcpy-in-order",
        "-Cpanic=abort",
    ]
    .map(str::to_owned)
    .to_vec();
    flags.push(format!("-Clinker={}", linker()?.display()));
    for (from, to) in remapped(&root, toolchain)? {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    run::say("building the kernel programs");
    let mut cargo = toolchain.cargo();
    cargo
        .args(["--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .args(feature.map(|feature| format!("--features={feature}")))
        .current_dir(root.join("pipelock-ebpf"))
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    run::check(&mut cargo)?;
    let linked = target.join(TARGET).join("release/pipelock-ebpf");
    let stripped = target.join("pipelock.bpf.o");
    // DWARF goes; BTF stays, the loader and the verifier's messages live on it.
    run::check(Command::new(objcopy()?).arg("--strip-debug").arg(&linked).arg(&stripped))?;
    std::fs::read(&stripped).with_context(|| stripped.display().to_string())
}

/// Folders of this machine and what stands for them in the object.
fn remapped(root: &Path, toolchain: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    let home = PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?);
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    // The last that fits wins.
    let mut all = vec![(home, "/elsewhere"), (cargo_home, "/cargo"), (root.to_owned(), "/pipelock")];
    if let Toolchain::Nightly { sysroot } = toolchain {
        all.push((sysroot.clone(), "/rust"));
    }
    Ok(all)
}

/// Fails when a path of this machine is in the object: it would differ from the next machine's, and tell who built it.
fn no_paths_of_this_machine(object: &[u8]) -> Result<()> {
    let mut needles = vec![run::root(), "/root/".into(), "/home/".into(), "/tmp/".into()];
    needles.extend(std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.components().count() > 1));
    for needle in needles {
        let bytes = needle.as_os_str().as_encoded_bytes();
        let found = object.windows(bytes.len()).position(|window| window == bytes);
        ensure!(found.is_none(), "the object holds the path {} (at byte {})", needle.display(), found.unwrap_or(0));
    }
    Ok(())
}

/// Fails when a name of one of our crates is in the object in its mangled form: it holds a hash of the checkout's path.
fn no_hashed_names(object: &[u8]) -> Result<()> {
    for needle in ["13pipelock_ebpf", "15pipelock_common"] {
        let Some(at) = object.windows(needle.len()).position(|window| window == needle.as_bytes()) else { continue };
        let is_text = |byte: &u8| byte.is_ascii_graphic();
        let start = object.iter().take(at).rposition(|byte| !is_text(byte)).map_or(0, |before| before + 1);
        let name: Vec<u8> = object.iter().skip(start).take_while(|byte| is_text(byte)).copied().collect();
        bail!(
            "the object holds the mangled name {}, which differs from checkout to checkout: make it #[inline(always)], \
             or give it a plain one with #[unsafe(export_name = …)]",
            String::from_utf8_lossy(&name)
        );
    }
    Ok(())
}

fn linker() -> Result<PathBuf> {
    run::find("bpf-linker").context("bpf-linker is missing; run cargo xtask setup --ebpf")
}

fn objcopy() -> Result<PathBuf> {
    let found = (15..40).rev().map(|version| format!("llvm-objcopy-{version}")).find_map(|name| run::find(&name));
    found.or_else(|| run::find("llvm-objcopy")).context("llvm-objcopy is missing; run cargo xtask setup --ebpf")
}

/// SHA-256 over path, length and bytes of every source file, sorted by path.
fn digest_sources() -> Result<String> {
    let root = run::root();
    let mut hash = Sha256::new();
    for source in SOURCES {
        let path = root.join(source);
        for file in if path.is_dir() { run::files(&path)? } else { vec![path] } {
            let name = file.strip_prefix(&root)?.to_str().context("a source file's name is not UTF-8")?;
            let bytes = std::fs::read(&file).with_context(|| name.to_owned())?;
            // Lengths, so that no byte can move from one file to the next unnoticed.
            for part in [name.as_bytes(), &bytes] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
    }
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(key: &str) -> String {
        let stamp = std::fs::read_to_string(run::root().join(STAMP)).expect("the stamp is checked in");
        let line = stamp.lines().find_map(|line| line.strip_prefix(key));
        line.expect("the stamp has this line").trim().to_owned()
    }

    #[test]
    fn the_object_is_of_these_sources() {
        assert_eq!(
            stamped("sources "),
            digest_sources().expect("the sources are readable"),
            "pipelock-common or pipelock-ebpf changed since the object was built: run `cargo xtask build-ebpf`"
        );
    }

    #[test]
    fn the_object_is_the_one_that_was_built() {
        let object = std::fs::read(run::root().join(OBJECT)).expect("the object is checked in");
        let digest = hex(&Sha256::digest(&object));
        assert_eq!(stamped("object "), digest, "{OBJECT} was changed by hand: run `cargo xtask build-ebpf`");
        no_paths_of_this_machine(&object).expect("portable");
        no_hashed_names(&object).expect("the same in every checkout");
    }

    #[test]
    fn a_path_of_the_machine_is_found() {
        assert!(no_paths_of_this_machine(b"src/\0/root/.cargo/registry/aya\0").is_err());
        assert!(no_paths_of_this_machine(b"src/\0/cargo/registry/aya\0").is_ok());
        let error = no_hashed_names(b"maps\0_RNvNtCsi8ATpOqTrTC_13pipelock_ebpf4emit5EMPTY\0").expect_err("mangled");
        assert!(error.to_string().contains(" _RNvNtCsi8ATpOqTrTC_13pipelock_ebpf4emit5EMPTY,"), "{error}");
    }
}
