"""Opens a WebSocket and sends frames, each once the one before has come back. usage: websocket.py HOST PORT FRAME...

FRAME is KIND:TEXT, KIND the number of the frame's kind. Prints `got KIND TEXT` for each that comes.
"""
import os, socket, struct, sys

host, port = sys.argv[1], int(sys.argv[2])
s = socket.create_connection((host, port), timeout=30)
s.sendall(f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
          f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
head = b""
while not head.endswith(b"\r\n\r\n"):
    head += s.recv(1) or sys.exit(f"no answer: {head}")
print(head.split(b"\r\n")[0].decode())


def exact(size):
    data = b""
    while len(data) < size:
        got = s.recv(size - len(data))
        if not got:
            print("gone")
            sys.exit()
        data += got
    return data


for frame in sys.argv[3:]:
    kind, text = frame.split(":", 1)
    mask, payload = os.urandom(4), text.encode()
    s.sendall(bytes([0x80 | int(kind), 0x80 | len(payload)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))
    first, size = exact(2)
    body = exact(size)
    if first & 15 == 8:
        print("closed", struct.unpack("!H", body[:2])[0], body[2:].decode())
        break
    print("got", first & 15, body.decode(), flush=True)
