// A site for browsers: a page, what it fetches, an event stream and a WebSocket that sends back what it gets. `argv[2]` is the
// page. Writes what a page has to see into `expected`, and what arrives on the WebSocket into `seen`.
const crypto = require("crypto"), zlib = require("zlib");
const sum = data => crypto.createHash("sha256").update(data).digest("hex");
const text = Array.from({ length: 6000 }, (_, line) => `line ${line}: nothing but clean words, and naïve ones\n`).join("");
const bytes = Buffer.from(Array.from({ length: 70000 }, (_, at) => (at * at + 7 * at) >> 3 & 255));
const events = ["one", "two words", "naïve three", "four"];
const expected = [
    `text 200 ${Buffer.byteLength(text)} ${sum(text)}`, `bytes 200 ${bytes.length} ${sum(bytes)}`,
    `up 200 64 ${sum(sum(bytes))}`, ...events.map(event => `event ${event}`),
    "message hello", "message naïve", `message ${bytes.length} ${sum(bytes)}`,
];
fs.writeFileSync(folder + "/expected", expected.join("\n"));
let release = null, isDone = false;
const handler = (request, response) => {
    const is = path => request.url.split("?")[0] === path;
    const answer = (type, body) => { response.setHeader("content-type", type); response.end(body); };
    if (is("/page")) return answer("text/html; charset=utf-8", process.argv[2]);
    if (is("/text")) {
        if (!/gzip/.test(request.headers["accept-encoding"] || "")) return answer("text/plain; charset=utf-8", text);
        response.setHeader("content-encoding", "gzip");
        return answer("text/plain; charset=utf-8", zlib.gzipSync(text));
    }
    if (is("/bytes")) return answer("application/octet-stream", bytes);
    if (is("/events")) {
        response.setHeader("content-type", "text/event-stream");
        const rest = [...events];
        const next = () => rest.length ? (response.write(`data: ${rest.shift()}\n\n`), setTimeout(next, 20)) : response.end();
        return next();
    }
    // An image that comes when the page is done, so that it is not loaded before.
    if (is("/wait")) {
        release = () => answer("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg'/>");
        if (isDone) release();
        return;
    }
    const parts = [];
    request.on("data", part => parts.push(part));
    request.on("end", () => {
        const body = Buffer.concat(parts);
        if (is("/done")) {
            fs.writeFileSync(folder + "/result", body);
            isDone = true;
            if (release) release();
        }
        answer("text/plain", is("/up") ? sum(body) : "fine");
    });
};
setImmediate(() => server.on("upgrade", (request, socket) => {
    const keep = data => fs.appendFileSync(folder + "/seen", data);
    keep(request.url + JSON.stringify(request.headers));
    const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const accept = crypto.createHash("sha1").update(key).digest("base64");
    socket.write(`HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    let input = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.on("data", data => {
        input = Buffer.concat([input, data]);
        while (input.length >= 14 || input.length >= 6 && (input[1] & 127) < 126) {
            let length = input[1] & 127, at = 2;
            if (length === 126) { length = input.readUInt16BE(2); at = 4; }
            else if (length === 127) { length = Number(input.readBigUInt64BE(2)); at = 10; }
            if (input.length < at + 4 + length) return;
            const mask = input.subarray(at, at + 4), payload = Buffer.from(input.subarray(at + 4, at + 4 + length));
            for (let i = 0; i < length; i++) payload[i] ^= mask[i % 4];
            keep(payload);
            const head = Buffer.alloc(length < 126 ? 2 : length < 65536 ? 4 : 10);
            head[0] = input[0];
            head[1] = length < 126 ? length : length < 65536 ? 126 : 127;
            if (head.length === 4) head.writeUInt16BE(length, 2);
            if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2);
            socket.write(Buffer.concat([head, payload]));
            input = input.subarray(at + 4 + length);
        }
    });
}));
