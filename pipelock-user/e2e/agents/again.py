"""Connects from one source port again and again, while the other end of the connection before is in TIME-WAIT.

usage: again.py ADDRESS... (IPv4 or IPv6, port 80; "own" is a server of this process on loopback)
prints for each {"address", "port", "got": [what came back, attempt by attempt]}
"""
import json, os, socket, sys, threading

ATTEMPTS = 5


def own_server():
    listener = socket.create_server(("127.0.0.1", 0), backlog=ATTEMPTS)

    def serve():
        for _ in range(ATTEMPTS):
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            # Ends first, so that TIME-WAIT is on this side.
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()


def attempt(to, port):
    s = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
    # A SYN that is dropped is sent again after a second.
    s.settimeout(10)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        s.bind(("", port))
        s.connect(to)
        port = s.getsockname()[1]
        s.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (b"[%s]" if ":" in to[0] else b"%s") % to[0].encode())
        head = s.recv(4096)
        while s.recv(4096):
            pass
        return (head.split(b" ")[1].decode() if head else "eof"), port
    except OSError as e:
        return os.strerror(e.errno) if e.errno else "timeout", port
    finally:
        s.close()


for address in sys.argv[1:]:
    to = own_server() if address == "own" else (address, 80)
    got, port = [], 0
    for _ in range(ATTEMPTS):
        result, port = attempt(to, port)
        got.append(result)
    print(json.dumps({"address": address, "port": port, "got": got}), flush=True)
