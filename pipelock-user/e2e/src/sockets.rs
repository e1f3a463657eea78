//! A WebSocket server for tests: Node.js, which agrees to every upgrade and sends back what it gets.

use std::io::BufRead as _;

/// The server; ends with the test.
#[derive(Debug)]
pub struct Sockets {
    child: std::process::Child,
    /// Where it listens on loopback.
    pub port: u16,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sockets {
    /// Starts it.
    ///
    /// # Panics
    /// When node fails.
    #[must_use]
    pub fn start() -> Self {
        let script = r#"
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
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"#;
        let mut child = std::process::Command::new("node")
            .args(["-e", script])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("node");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        std::io::BufReader::new(stdout).read_line(&mut line).expect("a line");
        Self { child, port: line.trim().parse().expect("a port") }
    }
}
