"""Reads bytes, each a block, on the CPU that it is told: the target of tests/kernels/hotplug.py.

Usage: counted_reads.py ORDERS DATA ANSWERS, three FIFOs. Each line of ORDERS is a CPU to go to
first (``-``: none) and how many bytes to read from DATA, one by one; the last line is ``end``.

An answer of two lines follows each, both JSON. Before the first byte: ``pid``, and the descriptor
``fd`` that is read. After the last: the span of time (``begin_ns``, ``end_ns``), and how often the
kernel says that the thread left its CPU of its own will in it (``voluntary``).
"""

import json
import os
import sys
import time
from pathlib import Path


def voluntary() -> int:
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise LookupError("the kernel does not count context switches")


def counted_now() -> tuple[int, int]:
    """The count and a moment, between which the thread did not leave its CPU by itself."""
    while True:
        count, now_ns = voluntary(), time.monotonic_ns()
        if voluntary() == count:
            return count, now_ns


def main() -> None:
    orders, data, answers = sys.argv[1:]
    fd = os.open(data, os.O_RDONLY)
    with Path(orders).open() as told, Path(answers).open("w") as answer:
        print("ready", file=answer, flush=True)
        for line in told:
            if line == "end\n":
                break
            cpu, count = line.split()
            if cpu != "-":
                os.sched_setaffinity(0, {int(cpu)})
            print(json.dumps({"pid": os.getpid(), "fd": fd}), file=answer, flush=True)
            before, begin_ns = counted_now()
            for _ in range(int(count)):
                os.read(fd, 1)
            after, end_ns = counted_now()
            result = {"begin_ns": begin_ns, "end_ns": end_ns, "voluntary": after - before}
            print(json.dumps(result), file=answer, flush=True)


main()
