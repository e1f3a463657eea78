# One bare pass of hyperscan over each file: PATTERNS FILE…; prints its version and how many patterns are too large for it, then a line
# of nanoseconds a file.
# Started by the `scan` suite (peers.rs) in a venv.
import sys
import time

import hyperscan

patterns = [line.encode() for line in open(sys.argv[1]).read().split("\n")]


def compiled(patterns):
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    count = len(patterns)
    database.compile(expressions=patterns, ids=list(range(count)), elements=count, flags=[0] * count)
    return database


def is_taken(pattern):
    try:
        compiled([pattern])
    except hyperscan.error:
        return False
    return True


# What the one library has room for the other may not.
taken = [pattern for pattern in patterns if is_taken(pattern)]
database = compiled(taken)
info = database.info()
without = f"; without {len(patterns) - len(taken)} of {len(patterns)} patterns, which are too large for it"
print((info.decode() if isinstance(info, bytes) else info) + (without if len(taken) < len(patterns) else ""))


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
