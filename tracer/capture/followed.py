"""Which threads are targets."""

from __future__ import annotations

from typing import Final

import numpy as np

from tracer.errors import PretakeError
from tracer.kernel import bpf
from tracer.kernel.compiler import FOLLOW_PROCESS, TELL_CALLS
from tracer.kernel.loaded import Loaded

__all__ = ["SHORTFALLS", "Followed"]

# enum where of common.bpf.c
_IN_UNKNOWN: Final = 2
_BEFORE_EXEC: Final = 3

SHORTFALLS: Final = ("foreign_calls", "stacks", "storage", "ps", "broken_calls")
"""What programs can fall short of: ``enum shortfall`` of common.bpf.c."""


class Followed:
    """The target threads, whose state hangs on their tasks in the kernel.

    Args:
        loaded: the programs.
        max_threads: target threads that can live at one time.
    """

    def __init__(self, loaded: Loaded, max_threads: int) -> None:
        self._loaded = loaded
        room = np.zeros((), loaded.shapes["thread_room"].dtype)
        room["remaining"] = max_threads
        loaded.update("thread_room", np.array(0, np.uint32), room)

    def prepare(self) -> None:
        """Load what it takes to look at threads, while that is allowed.

        Raises:
            PretakeError: the kernel refuses it.
        """
        for program in (FOLLOW_PROCESS, TELL_CALLS):
            if program in self._loaded.functions:
                self._loaded.load(program, bpf.TRACING, bpf.TRACE_ITERATOR)

    def tell_calls_over(self) -> None:
        """Have the calls told that have returned and whose threads were not seen since.

        Only once no other program runs any more, which might write to the same ring.

        Raises:
            PretakeError: the machine's threads cannot be looked at.
        """
        if TELL_CALLS in self._loaded.functions:
            self._walk(TELL_CALLS)

    def follow(self, pid: int, *, before_exec: bool = False) -> None:
        """Make targets of the threads that a process has now and that are none yet.

        Those that a target makes are targets from birth.

        Args:
            pid: the process.
            before_exec: tell nothing of it before it becomes another program.
        """
        self._look_at_threads(pid, _BEFORE_EXEC if before_exec else _IN_UNKNOWN)

    def end_at(self, end_ns: int) -> None:
        """Tell nothing of what comes after a moment, by CLOCK_MONOTONIC.

        To take the probes away takes a tenth of a second, and a thread that is dying is in no list
        of threads any more: so each record is asked for its own time.
        """
        self._loaded.update("capture_end", np.array(0, np.uint32), np.array(end_ns, np.int64))

    def shortfalls(self) -> dict[str, int]:
        """What the programs could not tell, and how often, by name (:data:`SHORTFALLS`)."""
        return {
            name: int(self._loaded.read("shortfalls", number))
            for number, name in enumerate(SHORTFALLS)
        }

    def missed(self) -> int:
        """Threads of targets that there was no room to follow."""
        return int(self._loaded.read("thread_room", 0)["missed"])

    def _look_at_threads(self, tgid: int, where: int) -> None:
        order = np.zeros((), self._loaded.shapes["follow_orders"].dtype)
        order["tgid"], order["where"] = tgid, where
        self._loaded.update("follow_orders", np.array(0, np.uint32), order)
        self._walk(FOLLOW_PROCESS)

    def _walk(self, function: str) -> None:
        try:
            program = self._loaded.load(function, bpf.TRACING, bpf.TRACE_ITERATOR)
            bpf.run_iterator(program)
        except OSError as error:
            raise PretakeError(
                f"cannot look at the machine's threads: {error.strerror}", "see 'pretake doctor'"
            ) from error
