"""Writes three pages at once to a pipe of one page, which another process reads page by page.

Usage: long_writes.py COUNT. The pipe's writing end is descriptor 100. Each page is read only once
the writer sleeps, so that each write blocks twice: and the last once it is there, so that the
writer does not wait for the pipe's lock either.
"""

import fcntl
import os
import select
import sys
from pathlib import Path

PAGE = 4096
reader, writer = os.pipe()
fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PAGE)
os.dup2(writer, 100)
empty_reader, empty_writer = os.pipe()
pid = os.getpid()
count = int(sys.argv[1])


def asleep() -> bool:
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "S" and Path(f"/proc/{pid}/syscall").read_text().startswith("1 ")


if os.fork() == 0:
    for _ in range(count):
        for page in range(3):
            while page < 2 and not asleep():
                os.sched_yield()
            select.select([reader], [], [])
            os.read(reader, PAGE)
        os.write(empty_writer, b"x")
    os._exit(0)
for _ in range(count):
    os.write(100, bytes(3 * PAGE))
    os.read(empty_reader, 1)
os.wait()
print("done", flush=True)
