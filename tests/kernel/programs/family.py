"""Threads and children that each block once, in a read of their own pipe.

Usage: family.py THREADS CHILDREN. Each thread takes a name, for table task.
"""

import os
import sys
import threading
from pathlib import Path

threads, children = int(sys.argv[1]), int(sys.argv[2])


def blocked(pid: int, tid: int, fd: int) -> bool:
    fields = Path(f"/proc/{pid}/task/{tid}/syscall").read_text().split()
    return fields[0] == "0" and int(fields[1], 16) == fd


def release_when_blocked(pid: int, tid: int, reader: int, writer: int) -> None:
    while not blocked(pid, tid, reader):
        pass
    os.write(writer, b"x")


def read_as(number: int, fd: int) -> None:
    Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(f"reader-{number}")
    os.read(fd, 1)


for number in range(threads):
    reader, writer = os.pipe()
    thread = threading.Thread(target=read_as, args=(number, reader))
    thread.start()
    assert thread.native_id is not None
    release_when_blocked(os.getpid(), thread.native_id, reader, writer)
    thread.join()
for _ in range(children):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        os._exit(0)
    release_when_blocked(child, child, reader, writer)
    os.waitpid(child, 0)
