"""Captures a command, and tells its own memory meanwhile.

Usage: own_memory.py TRACE PARTS PART_SECONDS COMMAND... Prints RssAnon in KiB and the number of
parts that table syscall has, about four times a second: what the process has of its own, the rings
apart. Ends when there are so many parts.
"""

import os
import signal
import sys
from pathlib import Path

from tracer.capture.options import CaptureOptions, Progress
from tracer.capture.record import record

trace, enough, part_seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
STATUS = Path("/proc/self/status")


def tell(_: Progress) -> None:
    """Called by the capture."""
    status = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    parts = sum(1 for _ in trace.glob("syscall/part-*"))
    print(status["RssAnon"].split()[0], parts, flush=True)
    if parts >= enough:
        os.kill(os.getpid(), signal.SIGINT)


options = CaptureOptions(runtime="none", detail="full", part_seconds=part_seconds)
record(sys.argv[4:], output=trace, options=options, progress=tell)
