"""Asks the resolver of the machine. usage: dns.py alternate SERVER... | dns.py QUERY...; QUERY is NAME/TYPE[/tcp][/edns][/raw=HEX]

Prints {"rcode", "answers": [[type, text]], "ede": [code, text], "truncated"} or {"error"} for each.
"""
import json, socket, struct, sys

SERVER = next(l.split()[1] for l in open("/etc/resolv.conf") if l.startswith("nameserver"))
TYPES = {"A": 1, "NS": 2, "CNAME": 5, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "SVCB": 64, "HTTPS": 65, "ANY": 255, "NULL": 10}


def name_at(data, at):
    labels, end = [], None
    while data[at]:
        if data[at] >= 192:
            end = end or at + 2
            at = struct.unpack("!H", data[at:at + 2])[0] & 0x3fff
        else:
            labels.append(data[at + 1:at + 1 + data[at]].decode())
            at += 1 + data[at]
    return ".".join(labels), end or at + 1


def parse(data):
    flags, questions, answers, authority, additional = struct.unpack("!HHHHH", data[2:12])
    at, out = 12, {"rcode": flags & 15, "answers": [], "ede": None, "truncated": bool(flags & 0x200), "size": len(data)}
    for _ in range(questions):
        _, at = name_at(data, at)
        at += 4
    for number in range(answers + authority + additional):
        _, at = name_at(data, at)
        kind, _, ttl, size = struct.unpack("!HHIH", data[at:at + 10])
        at += 10
        body = data[at:at + size]
        if kind == 41:
            out["rcode"] |= (ttl >> 24) << 4
            while len(body) >= 4:
                code, length = struct.unpack("!HH", body[:4])
                if code == 15:
                    out["ede"] = [struct.unpack("!H", body[4:6])[0], body[6:4 + length].decode()]
                body = body[4 + length:]
        elif number < answers:
            text = {1: lambda: socket.inet_ntop(2, body), 28: lambda: socket.inet_ntop(10, body), 12: lambda: name_at(data, at)[0]}.get(kind, body.hex)()
            out["answers"].append([kind, text])
            out["ttl"] = ttl
        at += size
    return out


def query(name, kind, edns, number=0x1234):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split(".") if l)
    packet = struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, int(edns)) + labels + b"\0" + struct.pack("!HH", kind, 1)
    return packet + (b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0) if edns else b"")


def exact(s, size):
    data = b""
    while len(data) < size:
        got = s.recv(size - len(data))
        if not got:
            raise EOFError
        data += got
    return data


def alternate(servers):
    """One socket asks the servers in turn, a name of its own each time, and reads all answers afterwards."""
    s = socket.socket(socket.AF_INET6 if ":" in servers[0] else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    asked = {}
    for number in range(12):
        server = servers[number % len(servers)]
        s.sendto(query("n%d.wild.test" % number, 1, False, number + 1), (server, 53))
        asked[number + 1] = server
    for _ in range(12):
        data, peer = s.recvfrom(4096)
        print(json.dumps({"asked": asked.pop(struct.unpack("!H", data[:2])[0]), "from": peer[0]}))


if sys.argv[1] == "alternate":
    alternate(sys.argv[2:])
    sys.exit()
stream = None
for text in sys.argv[1:]:
    parts = text.split("/")
    raw = next((bytes.fromhex(p[4:]) for p in parts if p.startswith("raw=")), None)
    packet = raw if raw is not None else query(parts[0], TYPES[parts[1]] if parts[1] in TYPES else int(parts[1]), "edns" in parts)
    try:
        if "tcp" in parts:
            stream = stream or socket.create_connection((SERVER, 53), timeout=5)
            stream.sendall(struct.pack("!H", len(packet)) + packet)
            data = exact(stream, struct.unpack("!H", exact(stream, 2))[0])
        else:
            s = socket.socket(socket.AF_INET6 if ":" in SERVER else socket.AF_INET, socket.SOCK_DGRAM)
            s.settimeout(1)
            s.sendto(packet, (SERVER, 53))
            data, peer = s.recvfrom(4096)
            assert peer[0] == SERVER, peer
        print(json.dumps(parse(data)))
    except (OSError, EOFError) as e:
        print(json.dumps({"error": repr(e)}))
