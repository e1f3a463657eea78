"""A destination that means harm: destination.py FOLDER [CERTIFICATE KEY]; what it does, the path says. Its port is in FOLDER/port."""

import os, socket, ssl, struct, sys, threading, zlib

folder, pair = sys.argv[1], sys.argv[2:4]
context = None
if pair:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)


def bomb():
    """A quarter of a gigabyte of zeros, in a quarter of a megabyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(256)), packer.flush()])


OK = b"HTTP/1.1 200 OK\r\n"


def hang_up(stream, with_reset=False):
    """Without the goodbye of TLS."""
    if with_reset:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def answer(stream, path):
    if path.startswith("/head/"):
        size = int(path[6:])
        stream.sendall(OK + b"x-big: " + b"y" * size + b"\r\ncontent-length: 2\r\n\r\nok")
    elif path == "/many":
        stream.sendall(OK + b"".join(b"x-%d: y\r\n" % n for n in range(5000)) + b"content-length: 2\r\n\r\nok")
    elif path == "/endless-head":
        stream.sendall(OK)
        while True:
            stream.sendall(b"x-more: y\r\n" * 1000)
    elif path == "/endless":
        stream.sendall(OK + b"transfer-encoding: chunked\r\n\r\n")
        while True:
            stream.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
    elif path == "/extensions":
        stream.sendall(OK + b"transfer-encoding: chunked\r\n\r\n5;")
        while True:
            stream.sendall(b"x" * 0x10000)
    elif path == "/trailers":
        stream.sendall(OK + b"transfer-encoding: chunked\r\n\r\n0\r\n")
        while True:
            stream.sendall(b"x-more: y\r\n" * 1000)
    elif path == "/bomb":
        packed = bomb()
        stream.sendall(OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed)
    elif path == "/whole":
        stream.sendall(OK + b"content-length: 5\r\n\r\nhello")
    elif path == "/chunks":
        stream.sendall(OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    elif path == "/cut":
        stream.sendall(OK + b"content-length: 1000\r\n\r\nhello")
    elif path == "/cut-chunks":
        stream.sendall(OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
    elif path == "/until-close":
        stream.sendall(OK + b"\r\nhello")
    elif path == "/431":
        stream.sendall(b"HTTP/1.1 431 Too Large\r\nconnection: close\r\n\r\n")
    elif path == "/silent":
        stream.recv(1)
    return hang_up(stream, path == "/431")


def serve(stream):
    try:
        if context:
            stream = context.wrap_socket(stream, server_side=True)
        head = b""
        # The first kilobyte of a long head is enough for who finds it too long.
        while b"\r\n\r\n" not in head and len(head) < 1000:
            more = stream.recv(1000)
            if not more:
                return
            head += more
        answer(stream, head.split(b" ")[1].decode().split("?")[0])
    except OSError:
        pass


listener = socket.create_server(("127.0.0.1", 0), backlog=128)
with open(os.path.join(folder, "port.new"), "w") as file:
    file.write(str(listener.getsockname()[1]))
os.rename(os.path.join(folder, "port.new"), os.path.join(folder, "port"))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
