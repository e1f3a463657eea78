//! Clients that fetch, send and then leak, and say of each what came of it: shared by those that are closed in and those that are
//! told of a proxy.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use pipelock_e2e::find;

pub(super) const PYTHON: &str = r#"
import hashlib, json, sys
base, secret = sys.argv[1:3]
def say(name, status, body):
    print(name, status, f"{len(body)} {hashlib.sha256(body).hexdigest()}" if status == 200 else json.loads(body)["reason"])
    return body
LEAKS = [("url", "GET", {"params": {"key": secret}}), ("header", "GET", {"headers": {"X-Key": secret}}),
         ("body", "POST", {"json": {"key": secret}})]
"#;
pub(super) const REQUESTS: &str = r#"
import requests as client
"#;
pub(super) const HTTPX: &str = r#"
import httpx
client = httpx.Client(http2=True)
"#;
pub(super) const ONE_BY_ONE: &str = r#"
def ask(name, method, path, **more):
    answer = client.request(method, base + path, **more)
    return say(name, answer.status_code, answer.content)
ask("text", "GET", "/text")
data = ask("bytes", "GET", "/bytes")
ask("up", "POST", "/up", data=data) if client.__class__.__name__ != "Client" else ask("up", "POST", "/up", content=data)
for name, method, more in LEAKS:
    ask(name, method, "/leak", **more)
"#;

const GO: &str = r#"package main

import ("bytes"; "crypto/sha256"; "encoding/json"; "fmt"; "io"; "net/http"; "os")

func ask(name, method, path string, body []byte, key string) []byte {
	request, _ := http.NewRequest(method, os.Args[1] + path, bytes.NewReader(body))
	if key != "" { request.Header.Set("X-Key", key) }
	answer, err := http.DefaultClient.Do(request)
	if err != nil { println(err.Error()); os.Exit(1) }
	data, _ := io.ReadAll(answer.Body)
	if answer.StatusCode == 200 {
		fmt.Printf("%s 200 %d %x\n", name, len(data), sha256.Sum256(data))
	} else {
		var problem struct{ Reason string }
		json.Unmarshal(data, &problem)
		fmt.Println(name, answer.StatusCode, problem.Reason)
	}
	return data
}

func main() {
	ask("text", "GET", "/text", nil, "")
	ask("up", "POST", "/up", ask("bytes", "GET", "/bytes", nil, ""), "")
	ask("url", "GET", "/leak?key=" + os.Args[2], nil, "")
	ask("header", "GET", "/leak", nil, os.Args[2])
	ask("body", "POST", "/leak", []byte(`{"key": "` + os.Args[2] + `"}`), "")
}
"#;

/// Builds the client in a folder.
pub(super) fn go_client(folder: &Path) -> PathBuf {
    std::fs::write(folder.join("main.go"), GO).expect("written");
    let program = folder.join("client");
    let out = Command::new(find("go").expect("go"))
        .args(["build", "-o"])
        .arg(&program)
        .arg("main.go")
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod")
        .current_dir(folder)
        .output()
        .expect("go build");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    program
}
