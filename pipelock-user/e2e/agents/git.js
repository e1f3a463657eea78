// Hands each request to git's own CGI program; `argv[2]` is the folder with the repositories.
const { spawn } = require("child_process");
const handler = (request, response) => {
    const url = new URL(request.url, "https://web.test");
    const child = spawn("git", ["http-backend"], { env: {
        PATH: process.env.PATH, GIT_PROJECT_ROOT: process.argv[2], GIT_HTTP_EXPORT_ALL: "1", REMOTE_USER: "agent",
        PATH_INFO: url.pathname, QUERY_STRING: url.search.slice(1), REQUEST_METHOD: request.method,
        CONTENT_TYPE: request.headers["content-type"] || "", HTTP_CONTENT_ENCODING: request.headers["content-encoding"] || "",
        GIT_PROTOCOL: request.headers["git-protocol"] || "",
    }});
    request.pipe(child.stdin);
    let head = Buffer.alloc(0), isInBody = false;
    child.stdout.on("data", data => {
        if (isInBody) return void response.write(data);
        head = Buffer.concat([head, data]);
        const end = head.indexOf("\r\n\r\n");
        if (end < 0) return;
        isInBody = true;
        for (const line of head.slice(0, end).toString().split("\r\n")) {
            const [name, value] = line.split(": ");
            if (name === "Status") response.statusCode = parseInt(value); else response.setHeader(name, value);
        }
        response.write(head.slice(end + 4));
    });
    child.on("close", () => response.end());
};
