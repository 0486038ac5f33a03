"""For each line of input, as ``calls 40`` or ``signals 40``: so many, and a line of output."""

import os
import signal
import sys

signal.signal(signal.SIGURG, lambda _signo, _frame: None)
os.sched_setaffinity(0, {int(sys.argv[1])})
print("ready", flush=True)
for line in sys.stdin:
    what, _, count = line.strip().partition(" ")
    for _ in range(int(count)):
        if what == "calls":
            os.getppid()
        else:
            os.kill(os.getpid(), signal.SIGURG)
    print(count, flush=True)
