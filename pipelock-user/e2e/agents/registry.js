// A registry of packages over TLS: what lies below `argv[2]` is served by its path, a folder by what is in its `index`; text is
// compressed when that is accepted, as registries do. Whatever is uploaded is taken and forgotten.
const path = require("path"), zlib = require("zlib"), root = process.argv[2];
const TYPES = { ".html": "text/html", ".json": "application/json", ".metadata": "text/plain", ".whl": "application/octet-stream",
    ".tgz": "application/octet-stream", ".crate": "application/gzip" };
const handler = (request, response) => {
    const name = path.normalize(decodeURIComponent(request.url.split("?")[0]));
    request.on("data", () => {});
    request.on("end", () => {
        if (request.method !== "GET" && request.method !== "HEAD") {
            response.setHeader("content-type", "application/json");
            return response.end('{"ok":true}');
        }
        const file = [name, name + "/index.html", name + "/index.json", name + ".json"].map(one => path.join(root, one))
            .find(one => fs.existsSync(one) && fs.statSync(one).isFile());
        if (!file) {
            response.statusCode = 404;
            return response.end("not here\n");
        }
        const type = TYPES[path.extname(file)] || "text/plain";
        let body = fs.readFileSync(file);
        response.setHeader("content-type", type);
        if (/^text|json/.test(type) && /gzip/.test(request.headers["accept-encoding"] || "")) {
            response.setHeader("content-encoding", "gzip");
            body = zlib.gzipSync(body);
        }
        response.setHeader("content-length", body.length);
        response.end(request.method === "HEAD" ? undefined : body);
    });
};
