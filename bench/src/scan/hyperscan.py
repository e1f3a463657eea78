# One bare pass of hyperscan over each file: PATTERNS FILE…; prints its version, then a line of nanoseconds a file.
# Started by the `scan` suite (peers.rs) in a venv.
import sys
import time

import hyperscan

patterns = [line.encode() for line in open(sys.argv[1]).read().split("\n")]
database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
database.compile(expressions=patterns, ids=list(range(len(patterns))), elements=len(patterns), flags=[0] * len(patterns))
info = database.info()
print(info.decode() if isinstance(info, bytes) else info)


def report(*_):
    return None


for name in sys.argv[2:]:
    text = open(name, "rb").read()
    repeats = max(1, min(20000, (2 << 20) // max(1, len(text))))
    best = None
    for _ in range(15):
        start = time.thread_time_ns()
        for _ in range(repeats):
            database.scan(text, match_event_handler=report)
        taken = (time.thread_time_ns() - start) // repeats
        best = taken if best is None else min(best, taken)
    print(best)
