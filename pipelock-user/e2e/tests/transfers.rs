//! What HTTP has besides plain requests: 100-continue, HEAD, ranges, and large bodies each way in bounded memory.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use pipelock_e2e::{Sandbox, TlsServer, need, web_policy};

const MIB: u64 = 1 << 20;

/// `/ok/N` has N zeros, whole and in parts, and takes as many as come.
const ZEROS: &str = r#"
globalThis.forgets = true;
const handler = (request, response) => {
    if (request.method === "PUT" || request.method === "POST") {
        let bytes = 0;
        request.on("data", data => { bytes += data.length; });
        request.on("end", () => response.end(JSON.stringify({ bytes }) + "\n"));
        return;
    }
    let size = Number(request.url.split("/").pop()), left = size;
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range || "");
    if (range) {
        left = range[2] - range[1] + 1;
        response.statusCode = 206;
        response.setHeader("content-range", `bytes ${range[1]}-${range[2]}/${size}`);
    }
    response.setHeader("content-type", "application/octet-stream");
    response.setHeader("accept-ranges", "bytes");
    response.setHeader("content-length", left);
    if (request.method === "HEAD") return response.end();
    const piece = Buffer.alloc(1 << 18);
    const pour = () => {
        while (left > 0) {
            const next = left < piece.length ? piece.subarray(0, left) : piece;
            left -= next.length;
            if (!response.write(next)) return response.once("drain", pour);
        }
        response.end();
    };
    pour();
};
"#;

fn sandbox(server: &TlsServer, members: &str) -> Sandbox {
    Sandbox::new(&web_policy(server.port(), &format!(", paths: [\"/ok/*\"]{members}"), &server.roots()))
}

/// Bodies of these sizes down and up: what pipelock's memory rises by is a fraction of either.
fn assert_bounded(members: &str, version: &str, down: u64, up: u64) {
    let server = TlsServer::node(&["web.test"], ZEROS, &[]);
    let url = format!("https://web.test:{}", server.port());
    let first = format!("curl -sS {version} -o /dev/null \"$1/ok/10\"");
    let get = format!("curl -sS {version} -o /dev/null -w '%{{http_code}} %{{size_download}}\\n' \"$1/ok/{down}\"");
    let put = format!("truncate -s {up} big; curl -sS {version} -T big \"$1/ok/up\"");
    let said = [format!("200 {down}\n"), format!("{{\"bytes\":{up}}}\n")];
    for ((script, size), said) in [(get, down), (put, up)].into_iter().zip(said) {
        let (run, rise) = sandbox(&server, members).run_measured(&first, &script, &[&url]);
        assert_eq!(run.text(), said, "{members} {version}");
        assert!(run.evidence.http().iter().all(|request| request.verdict == "allow"), "{run}");
        assert!(rise * 1024 < size / 4, "{members} {version}, {size} bytes: {rise} KiB");
    }
}

#[test]
fn large_bodies_that_are_not_read_pass_in_bounded_memory() {
    need!("curl", "openssl", "node");
    assert_bounded(", methods: [GET, PUT], scan: false", "--http1.1", 512 * MIB, 512 * MIB);
    // The destination's window makes uploads over HTTP/2 slow, with and without pipelock.
    assert_bounded(", methods: [GET, PUT], scan: false", "--http2", 512 * MIB, 64 * MIB);
}

#[test]
fn large_bodies_that_are_read_pass_in_bounded_memory() {
    need!("curl", "openssl", "node");
    for version in ["--http1.1", "--http2"] {
        assert_bounded("", version, 128 * MIB, 128 * MIB);
    }
}

#[test]
fn heads_and_parts() {
    need!("curl", "openssl", "node");
    let server = TlsServer::node(&["web.test"], ZEROS, &[]);
    let url = format!("https://web.test:{}", server.port());
    for version in ["--http1.1", "--http2"] {
        let script = format!(
            "curl -sS {version} -I \"$1/ok/123456789\" | tr -d '\\r' | grep -i '^content-length'\n\
             curl -sS {version} -r 1000-300999 -o part -w '%{{http_code}} %header{{content-range}}\\n' \"$1/ok/123456789\"\n\
             wc -c < part; cmp -n 300000 part /dev/zero"
        );
        let run = sandbox(&server, "").run_ok(&["sh", "-c", &script, "sh", &url]);
        let expected = "content-length: 123456789\n206 bytes 1000-300999/123456789\n300000\n";
        assert_eq!(run.text(), expected, "{version} {run}");
    }
}

/// The body is sent when pipelock says so, which is not before the head was let through.
#[test]
fn a_client_that_waits_for_100_sends_nothing_of_what_is_refused() {
    need!("curl", "python3", "openssl", "node");
    let server = TlsServer::node(&["web.test"], ZEROS, &[]);
    let url = format!("https://web.test:{}", server.port());
    let script = "head -c 200000 /dev/zero > body\n\
                  curl -sS --http1.1 -H 'Expect: 100-continue' --expect100-timeout 30 -w '%{http_code} %{size_upload}\\n' \
                      --data-binary @body \"$1/ok/x\"\n\
                  curl -sS --http1.1 -H 'Expect: 100-continue' --expect100-timeout 30 -o /dev/null \
                      -w '%{http_code} %{size_upload}\\n' --data-binary @body \"$1/no/x\"";
    let run = sandbox(&server, "").run_ok(&["sh", "-c", script, "sh", &url]);
    assert_eq!(run.text(), "{\"bytes\":200000}\n200 200000\n403 0\n", "{run}");
    // And a connection whose body was never sent carries no other request: nobody knows what would come.
    let raw = r#"
import socket, ssl, sys
host, port = sys.argv[1].split("//")[1].split(":")
stream = ssl.create_default_context().wrap_socket(socket.create_connection((host, int(port)), timeout=20), server_hostname=host)
stream.sendall(f"POST /no/x HTTP/1.1\r\nHost: {host}:{port}\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n".encode())
got = b""
while more := stream.recv(4096): got += more
print(got.split(b"\r\n")[0].decode(), b"connection: close" in got.lower())
"#;
    let run = sandbox(&server, "").run_ok(&["python3", "-c", raw, &url]);
    assert_eq!(run.text(), "HTTP/1.1 403 Forbidden True\n", "{run}");
}
