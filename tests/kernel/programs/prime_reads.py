"""A child blocks in read exactly as often as it is told; its parent writes only when it does.

Usage: prime_reads.py COUNT RESULT. RESULT gets, as the child saw it: its tid, the span of time,
and how often the kernel says it left its CPU of its own will and by force in that span.
"""

import json
import os
import sys
import time
from pathlib import Path

NR_READ = "0"


def switches(pid: str | int = "self") -> tuple[int, int]:
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    return int(status["voluntary_ctxt_switches"]), int(status["nonvoluntary_ctxt_switches"])


def counted_now() -> tuple[tuple[int, int], int]:
    """The counts and a moment, between which the thread did not leave its CPU."""
    while True:
        counts, now_ns = switches(), time.monotonic_ns()
        if switches() == counts:
            return counts, now_ns


def read(count: int, fd: int, result: Path) -> None:
    before, begin_ns = counted_now()
    for _ in range(count):
        os.read(fd, 1)
    after, end_ns = counted_now()
    result.write_text(
        json.dumps(
            {
                "tid": os.getpid(),
                "fd": fd,
                "begin_ns": begin_ns,
                "end_ns": end_ns,
                "voluntary": after[0] - before[0],
                "forced": after[1] - before[1],
            }
        )
    )


def blocked_in_read(pid: int, fd: int) -> bool:
    fields = Path(f"/proc/{pid}/syscall").read_text().split()
    return fields[0] == NR_READ and int(fields[1], 16) == fd


def main() -> None:
    count, result = int(sys.argv[1]), Path(sys.argv[2])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        read(count, reader, result)
        os._exit(0)
    seen = -1
    for _ in range(count):
        # A thread on its way out of a read (TASK_WAKING) still looks blocked in it: so it must
        # also have left its CPU once more since the last write.
        while not (blocked_in_read(child, reader) and switches(child)[0] > seen):
            pass
        seen = switches(child)[0]
        os.write(writer, b"x")
    os.waitpid(child, 0)


main()
