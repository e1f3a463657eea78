//! Clients that fetch, send and then leak, and say of each what came of it: shared by those that are closed in and those that are
//! told of a proxy.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use pipelock_e2e::{TlsServer, find};

/// What a client says that asked this site, and then leaked; `has_frames`: over a WebSocket too.
pub(super) fn told(site: &TlsServer, has_frames: bool) -> String {
    let expected = std::fs::read_to_string(site.certificate.with_file_name("expected")).expect("what the site has");
    let mut lines: Vec<&str> = expected.lines().take(3).collect();
    lines.extend(["url 403 dlp_match", "header 403 dlp_match", "body 403 dlp_match"]);
    if has_frames {
        lines.extend(["message hello", "frame 1008 dlp_match"]);
    }
    lines.join("\n")
}

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

pub(super) const AIOHTTP: &str = r#"
import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session:
        async def ask(name, method, path, **more):
            async with session.request(method, base + path, **more) as answer:
                return say(name, answer.status, await answer.read())
        await ask("text", "GET", "/text")
        data = await ask("bytes", "GET", "/bytes")
        await ask("up", "POST", "/up", data=data)
        for name, method, more in LEAKS:
            await ask(name, method, "/leak", **more)
        async with session.ws_connect(base + "/ws") as socket:
            await socket.send_str("hello")
            print("message", (await socket.receive()).data)
            await socket.send_str(secret)
            end = await socket.receive()
            print("frame", end.data, json.loads(end.extra)["reason"])
asyncio.run(main())
"#;

/// What a client of a WebSocket library says that sent texts, bytes and a message in parts, and then the secret: whole on one
/// connection, and in parts on another.
pub(super) fn told_in_frames(site: &TlsServer) -> String {
    let expected = std::fs::read_to_string(site.certificate.with_file_name("expected")).expect("what the site has");
    let mut lines: Vec<&str> = expected.lines().filter(|line| line.starts_with("message ")).collect();
    lines.extend(["message in three parts", "closed 1008 dlp_match"]);
    [lines.clone(), lines].concat().join("\n")
}

/// Takes a URL and the secret, and speaks through HTTPS_PROXY, if there is one, to a URL of `wss`.
pub(super) const WS: &str = r#"
const WebSocket = require("ws"), crypto = require("crypto");
const [url, secret] = process.argv.slice(1), proxy = process.env.HTTPS_PROXY;
const agent = proxy && url.startsWith("wss") ? new (require("https-proxy-agent").HttpsProxyAgent)(proxy) : undefined;
const bytes = Buffer.from(Array.from({ length: 70000 }, (_, at) => (at * at + 7 * at) >> 3 & 255));
const talk = leak => new Promise(done => {
    const socket = new WebSocket(url, { agent });
    const rest = [["hello"], ["naïve"], [bytes], ["in ", "three", " parts"], leak];
    const next = () => {
        const parts = rest.shift();
        if (parts) parts.forEach((part, at) => socket.send(part, { fin: at === parts.length - 1 })); else socket.close();
    };
    socket.on("open", next);
    socket.on("message", (data, isBinary) => {
        const sum = () => `${data.length} ${crypto.createHash("sha256").update(data).digest("hex")}`;
        console.log("message " + (isBinary ? sum() : data));
        next();
    });
    socket.on("close", (code, why) => {
        console.log("closed", code, why.length ? JSON.parse(why).reason : "");
        done();
    });
    socket.on("error", error => console.error(error));
});
talk([secret]).then(() => talk([secret.slice(0, 20), secret.slice(20)]));
"#;
/// The same in Python, whose library hears HTTPS_PROXY by itself.
pub(super) const WEBSOCKETS: &str = r#"
import hashlib, json, sys
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
url, secret = sys.argv[1:3]
data = bytes((at * at + 7 * at) >> 3 & 255 for at in range(70000))
for leak in (secret, [secret[:20], secret[20:]]):
    with connect(url, proxy=True if url.startswith("wss") else None) as socket:
        try:
            for message in ("hello", "naïve", data, ["in ", "three", " parts"], leak):
                socket.send(message)
                got = socket.recv()
                print("message", got if isinstance(got, str) else f"{len(got)} {hashlib.sha256(got).hexdigest()}")
        except ConnectionClosed as end:
            print("closed", end.rcvd.code, json.loads(end.rcvd.reason)["reason"])
"#;

pub(super) const NODE: &str = r#"
const [base, secret] = process.argv.slice(1), crypto = require("crypto");
const ask = async (name, path, options) => {
    const answer = await fetch(base + path, options), body = Buffer.from(await answer.arrayBuffer());
    const sum = () => `${body.length} ${crypto.createHash("sha256").update(body).digest("hex")}`;
    console.log(name, answer.status, answer.ok ? sum() : JSON.parse(body).reason);
    return body;
};
(async () => {
    await ask("text", "/text");
    const data = await ask("bytes", "/bytes");
    await ask("up", "/up", { method: "POST", body: data });
    await ask("url", "/leak?key=" + secret);
    await ask("header", "/leak", { headers: { "x-key": secret } });
    await ask("body", "/leak", { method: "POST", body: JSON.stringify({ key: secret }) });
    const socket = new WebSocket(base.replace("https", "wss") + "/ws");
    socket.onopen = () => socket.send("hello");
    socket.onmessage = event => {
        console.log("message " + event.data);
        if (event.data === "hello") socket.send(secret); else socket.close();
    };
    socket.onclose = event => console.log("frame", event.code, event.reason && JSON.parse(event.reason).reason);
})();
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

const JAVA: &str = r#"
import java.net.URI;
import java.net.http.*;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.concurrent.*;
public class Client {
    static final HttpClient CLIENT = HttpClient.newHttpClient();
    static String reason(String json) { return json.replaceAll("(?s).*\"reason\": ?\"([a-z_]+)\".*", "$1"); }
    static byte[] ask(String name, HttpRequest.Builder request) throws Exception {
        var answer = CLIENT.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
        byte[] body = answer.body();
        var sum = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body));
        System.out.println(name + " " + answer.statusCode() + " "
            + (answer.statusCode() == 200 ? body.length + " " + sum : reason(new String(body))));
        return body;
    }
    public static void main(String[] args) throws Exception {
        String base = args[0], secret = args[1];
        ask("text", HttpRequest.newBuilder(URI.create(base + "/text")));
        byte[] data = ask("bytes", HttpRequest.newBuilder(URI.create(base + "/bytes")));
        ask("up", HttpRequest.newBuilder(URI.create(base + "/up")).POST(HttpRequest.BodyPublishers.ofByteArray(data)));
        ask("url", HttpRequest.newBuilder(URI.create(base + "/leak?key=" + secret)));
        ask("header", HttpRequest.newBuilder(URI.create(base + "/leak")).header("X-Key", secret));
        ask("body", HttpRequest.newBuilder(URI.create(base + "/leak"))
            .POST(HttpRequest.BodyPublishers.ofString("{\"key\": \"" + secret + "\"}")));
        var done = new CountDownLatch(1);
        CLIENT.newWebSocketBuilder().buildAsync(URI.create(base.replace("https", "wss") + "/ws"), new WebSocket.Listener() {
            public void onOpen(WebSocket socket) { socket.sendText("hello", true); socket.request(1); }
            public CompletionStage<?> onText(WebSocket socket, CharSequence text, boolean last) {
                System.out.println("message " + text);
                if (text.toString().equals("hello")) socket.sendText(secret, true); else done.countDown();
                socket.request(1);
                return null;
            }
            public CompletionStage<?> onClose(WebSocket socket, int code, String why) {
                System.out.println("frame " + code + " " + reason(why));
                done.countDown();
                return null;
            }
            public void onError(WebSocket socket, Throwable error) { error.printStackTrace(); done.countDown(); }
        });
        done.await(30, TimeUnit.SECONDS);
        System.exit(0);
    }
}
"#;

/// Compiles the client, the class `Client`, in a folder.
pub(super) fn java_client(folder: &Path) {
    std::fs::write(folder.join("Client.java"), JAVA).expect("written");
    let out = Command::new("javac").arg("Client.java").current_dir(folder).output().expect("javac");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
