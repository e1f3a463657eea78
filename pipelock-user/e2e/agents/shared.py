"""Tries to have a datagram or connection decided as one to a socket of its own and delivered to one of the host's.

usage: shared.py PARAMETERS-AS-JSON NAME... ; as escapes.py, whose output it shares. The host holds, with SO_REUSEADDR, UDP
port `udp` on 0.0.0.0 and `udp6` on ::, and listens on TCP port `tcp` of 127.0.0.5 and `tcp4` of 127.0.0.1 alone. It has an
interface with a network of which `broadcast`, `network` and `there` are the last address, the first, and another host's.
"""
import json, os, socket, struct, sys

P = json.loads(sys.argv[1])
SECRET = b"SECRET"


def udp(addr=None, port=0, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(0.3)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if addr:
        s.bind((addr, port))
    return s


def listener(addr, port):
    s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET)
    s.settimeout(0.3)
    s.bind((addr, port))
    s.listen()
    return s


def got(own):
    """What came to the agent's own socket."""
    try:
        return own.recv(64).decode()
    except TimeoutError:
        return None


# -- nobody's but the host's
def any_sendto(): udp().sendto(SECRET, ("0.0.0.0", P["udp"]))
def any_sendto6(): udp(family=socket.AF_INET6).sendto(SECRET, ("::", P["udp6"]))


def any_connected():
    s = udp()
    s.connect(("0.0.0.0", P["udp"]))
    s.send(SECRET)


def any_connected6():
    s = udp(family=socket.AF_INET6)
    s.connect(("::", P["udp6"]))
    s.send(SECRET)


# -- decided as to a socket of its own on the same port
def own_is_reached():
    own = udp("127.0.0.1", P["udp"])
    udp().sendto(SECRET, ("127.0.0.1", P["udp"]))
    return got(own)


def any_from_other_source():
    """To 0.0.0.0 the kernel sends to the address that the socket is bound to."""
    own = udp("127.0.0.1", P["udp"])
    udp("127.0.0.5").sendto(SECRET, ("0.0.0.0", P["udp"]))
    return got(own)


def any_connected_from_other_source():
    own, s = udp("127.0.0.1", P["udp"]), udp("127.0.0.5")
    s.connect(("0.0.0.0", P["udp"]))
    s.send(SECRET)
    return got(own)


def any6_from_mapped_source():
    """To :: the kernel sends to 127.0.0.1 when the socket is bound to an IPv4 address."""
    own = udp("::1", P["udp"], socket.AF_INET6)
    udp("::ffff:127.0.0.1", family=socket.AF_INET6).sendto(SECRET, ("::", P["udp"]))
    return got(own)


def source_of_its_own():
    """The socket that is connected to the sender would get it, but the datagram says that it comes from elsewhere."""
    s = udp("0.0.0.0")
    own = udp("127.0.0.1", P["udp"])
    own.connect(("127.0.0.1", s.getsockname()[1]))
    source = struct.pack("=I4s4s", 0, socket.inet_aton("127.0.0.2"), bytes(4))
    s.sendmsg([SECRET], [(socket.IPPROTO_IP, 8, source)], 0, ("127.0.0.1", P["udp"]))
    return got(own)


def own_closed_since():
    own, s = udp("127.0.0.1", P["udp"]), udp()
    s.connect(("127.0.0.1", P["udp"]))
    own.close()
    s.send(SECRET)


def broadcast():
    """Comes to every socket on the port."""
    own, s = udp("0.0.0.0", P["udp"]), udp()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.sendto(SECRET, ("127.255.255.255", P["udp"]))
    return got(own)


def caster(family=socket.AF_INET):
    s = udp(family=family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return s


def directed_connected(to="broadcast"):
    """The backstop drops the datagram, but not the copy that the kernel has made for this host by then."""
    s = caster()
    s.connect((P[to], P["udp"]))
    s.send(SECRET)


def directed_connected_with_a_socket_there():
    """As if it were a service of its own."""
    own = udp("0.0.0.0", P["udp"])
    directed_connected()
    return got(own)


def directed_mapped():
    s = caster(socket.AF_INET6)
    s.connect(("::ffff:" + P["broadcast"], P["udp"]))
    s.send(SECRET)


def network_connected(): directed_connected("network")
def directed_sendto(): caster().sendto(SECRET, (P["broadcast"], P["udp"]))


def directed_by_source_route():
    """Connected to one host, by way of the broadcast (LSRR, RFC 791 section 3.1)."""
    s = caster()
    route = struct.pack("BBB4sB", 131, 7, 4, socket.inet_aton(P["broadcast"]), 0)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, route)
    s.connect((P["there"], P["udp"]))
    s.send(SECRET)


def directed_tcp():
    s = socket.socket()
    s.settimeout(0.5)
    s.connect((P["broadcast"], P["tcp"]))


def tcp_any_from_other_source():
    own, s = listener("127.0.0.1", P["tcp"]), socket.socket()
    s.settimeout(0.5)
    s.bind(("127.0.0.5", 0))
    s.connect(("0.0.0.0", P["tcp"]))
    s.sendall(SECRET)
    return own.accept()[0].recv(64).decode()


def tcp_any6_from_mapped_source():
    own, s = listener("::1", P["tcp4"]), socket.socket(socket.AF_INET6)
    s.settimeout(0.5)
    s.bind(("::ffff:127.0.0.1", 0))
    s.connect(("::", P["tcp4"]))
    s.sendall(SECRET)
    return own.accept()[0].recv(64).decode()


# -- what users do
def server_with_many_clients():
    """A server on one socket, as of DNS or gossip, with more clients than a socket has slots; twice around."""
    own = udp("127.0.0.1")
    clients = [udp("127.0.0.1") for _ in range(9)]
    answers = 0
    for _ in range(2):
        for client in clients:
            client.connect(own.getsockname())
            client.send(b"ask")
        for _ in clients:
            question, client = own.recvfrom(64)
            own.sendto(question, client)
        answers += sum(client.recv(64) == b"ask" for client in clients)
    return answers


def main():
    for name in sys.argv[2:]:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            with open("/proc/self/comm", "w") as comm:
                comm.write(name[:15])
            value, number = None, 0
            try:
                value = globals()[name]()
            except OSError as e:
                number, value = e.errno or -1, str(e)
            print(json.dumps({"name": name, "pid": os.getpid(), "errno": number, "got": value}), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
