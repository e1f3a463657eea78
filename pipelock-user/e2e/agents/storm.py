"""Connects as fast as it can, in several processes.

usage: storm.py MODE ADDRESS PORT PROCESSES
  crowd   PROCESSES short-lived processes open 40 connections each; prints {"pid", "comm", "ports"} of each
  reload  until the file "stop" is there; prints how often what came back, and the paths that were answered
  kill    until the file "killed" is there and 100 attempts more; prints what came back before and after
"""
import collections, json, os, socket, sys, time

MODE, ADDRESS, PORT, PROCESSES = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


def attempt(path):
    """The status of the answer, or the error, and our own port."""
    s = socket.socket(socket.AF_INET6 if ":" in ADDRESS else socket.AF_INET)
    s.settimeout(20)
    port = 0
    try:
        s.connect((ADDRESS, PORT))
        port = s.getsockname()[1]
        s.sendall(b"GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (path.encode(), ADDRESS.encode()))
        head = s.recv(4096)
        while s.recv(4096):
            pass
        return (head.split(b" ")[1].decode() if head else "eof"), port
    except OSError as e:
        return os.strerror(e.errno) if e.errno else "timeout", port
    finally:
        s.close()


def name(comm):
    with open("/proc/self/comm", "w") as f:
        f.write(comm)


def say(value):
    os.write(1, (json.dumps(value) + "\n").encode())


def crowd(number):
    comm = "crowd-%d" % number
    name(comm)
    results = [attempt("crowd/%d" % number) for _ in range(40)]
    say({"pid": os.getpid(), "comm": comm, "ports": [p for _, p in results], "got": sorted({r for r, _ in results})})


def reload(number):
    name("reload-%d" % number)
    counts, paths, n = collections.Counter(), [], 0
    while not os.path.exists("stop"):
        path = "r/%d/%d" % (number, n)
        n += 1
        result, _ = attempt(path)
        counts[result] += 1
        if result == "200":
            paths.append("/" + path)
        if n == 10:
            open("started-%d" % number, "w").close()
    say({"counts": counts, "paths": paths, "pid": os.getpid()})


def kill(number):
    name("kill-%d" % number)
    before, after, n = collections.Counter(), collections.Counter(), 0
    while sum(after.values()) < 100:
        killed = os.path.exists("killed")
        result, _ = attempt("k/%d/%d" % (number, n))
        (after if killed else before)[result] += 1
        n += 1
        if n == 10:
            open("started-%d" % number, "w").close()
    say({"before": before, "after": after, "pid": os.getpid()})


def flood(number):
    """The last process works; the others are refused as often as they can, at three ports."""
    name("flood-%d" % number)
    if number == PROCESSES - 1:
        results = collections.Counter(attempt("flood/%d" % n)[0] for n in range(150))
        say({"got": results})
        open("stop", "w").close()
        return
    counts, n = collections.Counter(), 0
    family = socket.AF_INET6 if ":" in ADDRESS else socket.AF_INET
    while n < 20000 or not os.path.exists("stop"):
        s = socket.socket(family)
        result = s.connect_ex((ADDRESS, 81 + n % 3))
        s.close()
        counts["%d %d" % (81 + n % 3, result)] += 1
        n += 1
    say({"refused": counts})


def main():
    children, width = [], PROCESSES + 1 if MODE != "crowd" else 8
    for number in range(PROCESSES):
        child = os.fork()
        if child == 0:
            globals()[MODE](number)
            os._exit(0)
        children.append(child)
        if len(children) >= width:
            os.waitpid(children.pop(0), 0)
    for child in children:
        os.waitpid(child, 0)


main()
