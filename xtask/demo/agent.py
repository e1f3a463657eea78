"""What the demo's agent tries beyond ordinary clients. Exits with 0 when it got through and with 1 when it did not."""

import socket
import struct
import sys


def udp(address, port):
    """A datagram, as HTTP/3 would send it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"secret", (address, int(port)))


def tcp(address, port, protocol=0):
    """A connection on which the other side answers something."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as sock:
        sock.settimeout(5)
        sock.connect((address, int(port)))
        sock.sendall(f"GET / HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        head = sock.recv(4096)
        if not head.startswith(b"HTTP/1.0 200") and not head.startswith(b"HTTP/1.1 200"):
            raise OSError(f"answered with {head[:60]!r}")


def mptcp(address, port):
    """Multipath TCP, which hooks for TCP alone do not see."""
    tcp(address, port, 262)


def ping(address):
    """An ICMP echo request through a raw or a ping socket."""
    packet = struct.pack("!BBHHH", 8, 0, 0xF7FE, 0, 1)
    errors = []
    for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
        try:
            with socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP) as sock:
                sock.sendto(packet, (address, 0))
                return
        except OSError as error:
            errors.append(str(error))
    raise OSError("; ".join(errors))


def dns(server, name):
    """A question to a server of the agent's choice: the name itself could carry a secret out."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((server, 53))
        sock.send(struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + question + struct.pack("!2H", 1, 1))
        answer = sock.recv(512)
    code = answer[3] & 15
    if code:
        raise OSError(f"answered with the DNS error {code}")


ways = {"udp": udp, "tcp": tcp, "mptcp": mptcp, "ping": ping, "dns": dns}
try:
    ways[sys.argv[1]](*sys.argv[2:])
except OSError as error:
    sys.exit(str(error))
