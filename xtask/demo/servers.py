"""The world of the demo: a web site, a package index and a git repository over HTTP, and a site over TLS.

Started by `cargo xtask demo` in a folder that it prepared; listens on 127.77.0.1 only. Prints "ready" when all listen and
ends when its standard input does, so that nothing is left behind whatever happens to the demo.
"""

import hashlib
import os
import ssl
import subprocess
import sys
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = "127.77.0.1"
HTTP_PORT = 18080
TLS_PORT = 18443
SITES = "sites"


class Site(SimpleHTTPRequestHandler):
    """One folder for each host."""

    protocol_version = "HTTP/1.1"

    def translate_path(self, path):
        host = self.headers.get("Host", "").split(":")[0]
        if host not in os.listdir(SITES):
            host = "nowhere"
        self.directory = os.path.abspath(os.path.join(SITES, host))
        return super().translate_path(path)

    def do_POST(self):
        # Never reached in the demo: the policy allows GET only.
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def make_web():
    write(f"{SITES}/web.demo.test/index.html", "hello from the web\n")
    for host in ("tls.demo.test", "read.demo.test"):
        write(f"{SITES}/{host}/index.html", f"hello from {host}\n")


def make_index():
    """A package index with one wheel, as PEP 427 and PEP 503 lay them down."""
    root = f"{SITES}/pypi.demo.test"
    name = "hello_demo-1.0-py3-none-any.whl"
    info = "hello_demo-1.0.dist-info"
    files = {
        "hello_demo.py": 'print("hello")\n',
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: hello-demo\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    os.makedirs(f"{root}/files", exist_ok=True)
    with zipfile.ZipFile(f"{root}/files/{name}", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    with open(f"{root}/files/{name}", "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    write(f"{root}/simple/hello-demo/index.html", f'<a href="/files/{name}#sha256={digest}">{name}</a>\n')


def make_repository():
    """A bare repository that any file server can serve."""
    bare = os.path.abspath(f"{SITES}/git.demo.test/hello.git")

    def git(*words, **options):
        who = ["-c", "user.name=Demo", "-c", "user.email=demo@demo.test"]
        return subprocess.run(["git", *who, *words], check=True, capture_output=True, **options).stdout.decode().strip()

    os.makedirs(bare)
    git("init", "--quiet", "--bare", "--initial-branch=main", bare)
    blob = git("-C", bare, "hash-object", "-w", "--stdin", input=b"hello from git\n")
    tree = git("-C", bare, "mktree", input=f"100644 blob {blob}\tREADME\n".encode())
    commit = git("-C", bare, "commit-tree", tree, "-m", "Say hello")
    git("-C", bare, "update-ref", "refs/heads/main", commit)
    git("-C", bare, "update-server-info")


def make_certificate():
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
        + ["-keyout", "tls.key", "-out", "tls.pem", "-subj", "/CN=tls.demo.test"]
        + ["-addext", "subjectAltName=DNS:tls.demo.test,DNS:read.demo.test"],
        check=True,
        capture_output=True,
    )


def listen(port, context=None):
    try:
        server = ThreadingHTTPServer((ADDRESS, port), Site)
    except OSError as error:
        sys.exit(f"the demo's server cannot listen on {ADDRESS}:{port}: {error}")
    if context:
        # The handshake happens in the connection's own thread, on the first read.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main():
    make_web()
    make_index()
    make_repository()
    make_certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("tls.pem", "tls.key")
    listen(HTTP_PORT)
    listen(TLS_PORT, context)
    print("ready", flush=True)
    sys.stdin.read()


main()
