//! A WebSocket server for tests: Node.js, which agrees to every upgrade and sends back what it gets.

use std::process::Command;

use crate::child::Served;

const SCRIPT: &str = r#"
const crypto = require("crypto");
const server = require("http").createServer((q, r) => r.end("plain"));
server.on("upgrade", (request, socket) => {
    const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const accept = crypto.createHash("sha1").update(key).digest("base64");
    socket.write("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + "\r\n\r\n");
    let input = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.on("data", data => {
        input = Buffer.concat([input, data]);
        while (input.length >= 6) {
            let length = input[1] & 127, at = 2;
            if (length == 126) { length = input.readUInt16BE(2); at = 4; }
            if (input.length < at + 4 + length) return;
            const mask = input.subarray(at, at + 4), payload = Buffer.from(input.subarray(at + 4, at + 4 + length));
            for (let i = 0; i < length; i++) payload[i] ^= mask[i % 4];
            const head = length < 126 ? Buffer.from([input[0], length]) : Buffer.from([input[0], 126, length >> 8, length & 255]);
            socket.write(Buffer.concat([head, payload]));
            input = input.subarray(at + 4 + length);
        }
    });
});
const fs = require("fs"), folder = process.argv[1];
server.listen(0, "127.0.0.1", () => {
    fs.writeFileSync(folder + "/port.new", String(server.address().port));
    fs.renameSync(folder + "/port.new", folder + "/port");
});
"#;

/// Starts it on loopback.
///
/// # Panics
/// When node fails.
#[must_use]
pub fn web_sockets() -> Served {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Served::start(Command::new("node").args(["-e", SCRIPT]).arg(folder.path()), folder)
}
