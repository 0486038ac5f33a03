"""Work in a child process: its result, its error, and its death come back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from tracer.kernel.apart import apart

_SCRIPT = """
import os, signal
from tracer.errors import PretakeError
from tracer.kernel.apart import apart

pid, big = apart(lambda: (os.getpid(), b"x" * (1 << 20)))
print(pid != os.getpid(), big == b"x" * (1 << 20))

def refuse():
    raise PretakeError("no compiler", "install it")

for work in (refuse, lambda: os.kill(os.getpid(), signal.SIGKILL)):
    try:
        apart(work)
    except PretakeError as error:
        print(f"{error.problem}; {error.mend}")
"""


def test_result_error_and_death_come_back_from_another_process() -> None:
    """In a process of its own: pytest's has threads."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [
        "True True",
        "no compiler; install it",
        "the compiler was ended; see 'pretake doctor'",
    ]


def test_where_there_are_threads_it_is_done_here() -> None:
    found = []
    ends = threading.Event()
    other = threading.Thread(target=ends.wait)
    other.start()
    try:
        found.append(apart(os.getpid))
    finally:
        ends.set()
        other.join()
    assert found == [os.getpid()]
