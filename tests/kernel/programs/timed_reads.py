"""Reads that block, with the time before and after each by the clock that the capture has.

Usage: timed_reads.py COUNT. Descriptor 100 is read; who writes waits until the reader sleeps.
Prints [before_ns, after_ns] for each, at the end.
"""

import json
import os
import sys
import time
from pathlib import Path

reader, writer = os.pipe()
os.dup2(reader, 100)
pid = os.getpid()
count = int(sys.argv[1])
if os.fork() == 0:
    for _ in range(count):
        while True:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            call = Path(f"/proc/{pid}/syscall").read_text()
            if state == "S" and call.startswith("0 0x64 "):
                break
            os.sched_yield()
        os.write(writer, b"x")
    os._exit(0)
told = []
for _ in range(count):
    before = time.monotonic_ns()
    os.read(100, 1)
    told.append([before, time.monotonic_ns()])
os.wait()
for times in told:
    print(json.dumps(times), flush=True)
