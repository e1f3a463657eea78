//! Package managers over TLS that is opened and read (`scan: true`), against a registry of the test's own with links and hashes of
//! the shapes that the public ones have: what is installed is what was served, nothing is alarmed at, and no secret leaves.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod registry;

use std::path::Path;

use pipelock_e2e::{Run, SECRET, Sandbox, assert_kept_in, assert_quiet, has_python_module, holds, missing, need};
use registry::{Leak, NPM, PIP, Registry, SUMS, USER, has_failed, lines, to_fail};

/// Names as they are in the world, with digits and letters that are no words.
const NAMES: &str = include_str!("../agents/package_names.txt");

fn closed_in(registry: &Registry) -> Sandbox {
    Sandbox::new(&registry.policy())
}

/// Runs a client that is to fail and keeps what it says from us.
fn run_to_fail(sandbox: Sandbox, script: &str) -> Run {
    let run = sandbox.run_ok(&["sh", "-c", &to_fail(script)]);
    assert!(has_failed(&run.stdout), "{script}: {run}");
    run
}

fn assert_stopped(registry: &Registry, leak: &Leak) {
    let sandbox = closed_in(registry);
    for (name, text) in &leak.files {
        sandbox.file(name, text);
    }
    let run = run_to_fail(sandbox, &leak.script);
    let seen = registry.server.seen();
    assert_kept_in(&run, leak.place, &seen);
    assert!(!holds(&seen, leak.path), "{}: the request arrived", leak.path);
}

#[test]
fn pip() {
    need!("pip3", "python3", "node", "openssl");
    let registry = Registry::of(&["plsample"]);
    let base = &registry.base;
    let run =
        closed_in(&registry).run_ok(&["sh", "-c", &format!("{PIP} --index-url {base}/simple/ plsample && {SUMS}")]);
    assert_quiet(&run);
    assert!(registry.sums(".whl").contains(&run.text().trim().to_owned()) && run.evidence.http().len() > 1, "{run}");
    for leak in registry.leaks_of_pip() {
        assert_stopped(&registry, &leak);
    }
}

/// What `twine upload` sends, with python-requests as it does.
const UPLOAD: &str = r##"
import io, requests, sys, zipfile
url, text, way = sys.argv[1], sys.argv[2], sys.argv[3]
data = io.BytesIO()
with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED if way == "stored" else zipfile.ZIP_DEFLATED) as wheel:
    wheel.writestr("plsample.py", "ANSWER = 42\n" * 40)
    wheel.writestr("settings.py", "# what is in here is what matters\n" * 9 + f"TOKEN = '{text}'\n" + "OTHER = 1\n" * 30)
fields = {":action": "file_upload", "protocol_version": "1", "name": "plsample", "version": "1.0.1",
          "comment": text if way == "field" else "none"}
name = (text if way == "name" else "plsample") + "-1.0.1-py3-none-any.whl"
content = b"as it is" if way in ("field", "name") else data.getvalue()
answer = requests.post(url, data=fields, files={"content": (name, content)}, auth=("agent", "no-secret"))
print(answer.status_code)
answer.raise_for_status()
"##;

#[test]
fn an_upload_by_multipart() {
    need!("python3", "node", "openssl");
    if !has_python_module("requests") {
        return missing("python requests");
    }
    let registry = Registry::of(&[]);
    let sandbox = || {
        let sandbox = closed_in(&registry).env("PYTHONPATH", pipelock_e2e::python_path());
        sandbox.file("upload.py", UPLOAD);
        sandbox
    };
    let upload = |text: &str, way: &str| format!("/usr/bin/python3 upload.py {}/legacy/ {text} {way}", registry.base);
    for way in ["field", "name", "stored", "deflated"] {
        let run = run_to_fail(sandbox(), &upload(SECRET, way));
        assert_kept_in(&run, "body", &registry.server.seen());
        assert!(!holds(&registry.server.seen(), "/legacy/"), "{way}: the upload arrived");
    }
    let run = sandbox().run_ok(&["sh", "-c", &upload("nothing-secret", "deflated")]);
    assert_eq!(run.text().trim(), "200", "{run}");
    assert!(holds(&registry.server.seen(), "/legacy/"));
}

#[test]
fn npm() {
    need!("npm", "node", "openssl");
    let registry = Registry::of(&["plsample"]);
    let sandbox = closed_in(&registry);
    sandbox.file("package.json", USER);
    let run = sandbox.run_ok(&["sh", "-c", &registry.npm_installs()]);
    assert_quiet(&run);
    assert_eq!(lines(&run.stdout), [&["42".to_owned()][..], &registry.sums(".tgz")].concat(), "{run}");
    for leak in registry.leaks_of_npm() {
        assert_stopped(&registry, &leak);
    }
    let sandbox = closed_in(&registry);
    for (name, text) in registry.package("module.exports = 42;\n") {
        sandbox.file(name, text);
    }
    let run = sandbox.run_ok(&["sh", "-c", &registry.npm_publishes()]);
    assert!(holds(&registry.server.seen(), "PUT\n/up/"), "{run}");
}

/// Cargo lies in root's home as a rule, where no other user may look.
fn cargo(registry: &Registry, dependencies: &[&str], token: &str) -> Option<(Sandbox, String)> {
    let cargo = std::env::var("CARGO").ok().filter(|path| Path::new(path).is_file())?;
    let rustc = Path::new(&cargo).with_file_name("rustc");
    let sandbox = closed_in(registry).user("root").env("RUSTC", rustc.to_str()?);
    let list: String =
        dependencies.iter().map(|name| format!("{name} = {{version = \"1\", registry = \"local\"}}\n")).collect();
    sandbox.file(
        "Cargo.toml",
        format!(
            "[package]\nname = \"user\"\nversion = \"1.0.0\"\nedition = \"2021\"\nlicense = \"MIT\"\ndescription = \"one\"\n\
             [dependencies]\n{list}"
        ),
    );
    sandbox.file("lib.rs", "");
    std::fs::create_dir_all(sandbox.work().join("src")).expect("a folder");
    std::fs::write(sandbox.work().join("src/lib.rs"), "pub const ANSWER: u32 = 42;\n").expect("write");
    std::fs::create_dir_all(sandbox.work().join(".cargo")).expect("a folder");
    let config = format!(
        "[registries.local]\nindex = \"sparse+{}/crates/\"\ntoken = \"{token}\"\ncredential-provider = \"cargo:token\"\n\
         [net]\nretry = 0\n",
        registry.base
    );
    std::fs::write(sandbox.work().join(".cargo/config.toml"), config).expect("write");
    Some((sandbox, cargo))
}

#[test]
fn cargo_fetches_and_publishes() {
    need!("python3", "node", "openssl");
    let registry = Registry::of(&["plsample"]);
    let Some((sandbox, program)) = cargo(&registry, &["plsample"], "") else { return missing("cargo") };
    let script = format!("{program} fetch -q && find . -name '*.crate' -exec sha256sum {{}} + | cut -d' ' -f1");
    let run = sandbox.run_ok(&["sh", "-c", &script]);
    assert_quiet(&run);
    assert_eq!(lines(&run.stdout), registry.sums(".crate"), "{run}");

    let publish = format!("{program} publish -q --no-verify --allow-dirty --registry local");
    for (script, token, place, path) in [
        (format!("{program} search --registry local {SECRET}"), "plain", "url", "/api/v1/crates?"),
        (format!("{program} owner --list --registry local plsample"), SECRET, "header authorization", "/owners"),
        (publish.clone(), "plain", "body", "PUT\n/crates/api"),
    ] {
        let (sandbox, _) = cargo(&registry, &[], token).expect("it was there");
        std::fs::write(sandbox.work().join("src/secret.rs"), format!("const TOKEN: &str = \"{SECRET}\";\n"))
            .expect("write");
        let run = run_to_fail(sandbox, &script);
        assert_kept_in(&run, place, &registry.server.seen());
        assert!(!holds(&registry.server.seen(), path), "{path}: the request arrived");
    }
    // It then waits for the package to be listed, which it never is.
    let (sandbox, _) = cargo(&registry, &[], "plain").expect("it was there");
    let run = sandbox.run(&["timeout", "20", "sh", "-c", &publish]);
    assert!(holds(&registry.server.seen(), "PUT\n/crates/api"), "{run}");
}

/// A registry of more than a hundred packages, with their names.
fn large() -> (Registry, Vec<&'static str>) {
    let names: Vec<_> = NAMES.lines().collect();
    assert!(names.len() >= 100);
    (Registry::of(&names), names)
}

/// Everything was installed, and nothing raised.
fn assert_installed(run: &Run, names: &[&str]) {
    assert_eq!(run.text().trim(), names.len().to_string(), "{run}");
    assert!(run.evidence.http().len() >= 2 * names.len(), "{run}");
    assert_quiet(run);
}

#[test]
fn a_hundred_packages_by_pip_raise_nothing() {
    need!("pip3", "python3", "node", "openssl");
    let (registry, names) = large();
    let script = format!("{PIP} --index-url {}/simple/ {} && ls out | wc -l", registry.base, names.join(" "));
    assert_installed(&closed_in(&registry).run_ok(&["sh", "-c", &script]), &names);
}

#[test]
fn a_hundred_packages_by_npm_raise_nothing() {
    need!("npm", "python3", "node", "openssl");
    let (registry, names) = large();
    let sandbox = closed_in(&registry);
    let list: Vec<String> = names.iter().map(|name| format!("\"{name}\": \"1.0.0\"")).collect();
    let list = list.join(", ");
    sandbox
        .file("package.json", format!("{{\"name\": \"user\", \"version\": \"1.0.0\", \"dependencies\": {{{list}}}}}"));
    let script = format!("npm install {NPM} --registry {}/npm/ >&2 && ls node_modules | wc -l", registry.base);
    assert_installed(&sandbox.run_ok(&["sh", "-c", &script]), &names);
}

#[test]
fn a_hundred_packages_by_cargo_raise_nothing() {
    need!("python3", "node", "openssl");
    let (registry, names) = large();
    let Some((sandbox, program)) = cargo(&registry, &names, "") else { return missing("cargo") };
    let script = format!("{program} fetch -q && find . -name '*.crate' | wc -l");
    assert_installed(&sandbox.run_ok(&["sh", "-c", &script]), &names);
}
