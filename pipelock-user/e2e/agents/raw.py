"""Sends bytes as they are. usage: raw.py NAME PORT [CHUNK]; reads them from stdin, prints what comes back."""
import socket, sys, time

data = sys.stdin.buffer.read()
chunk = int(sys.argv[3]) if len(sys.argv) > 3 else len(data) or 1
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=15)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
try:
    for start in range(0, len(data), chunk):
        s.sendall(data[start:start + chunk])
        if chunk < len(data):
            time.sleep(0.0005)
    # No end of ours: some of what is sent is only refused when it is complete.
    s.settimeout(0.6)
    while True:
        got = s.recv(65536)
        if not got:
            break
        sys.stdout.buffer.write(got)
        sys.stdout.buffer.flush()
    print("\n[closed]")
except ConnectionError as e:
    print("\n[%s]" % type(e).__name__)
except TimeoutError:
    print("\n[silence]")
