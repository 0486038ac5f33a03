"""The clock of a trace, also for a process in a time namespace.

The times of BPF programs are of the machine's CLOCK_MONOTONIC. A process in a time namespace reads
the same clock plus an offset (time_namespaces(7)). So the tracer subtracts its own offset from the
times that it reads, and a target's offset from the times that the target recorded.

CLOCK_MONOTONIC stands still while the machine is suspended, and CLOCK_BOOTTIME goes on. Their
difference shows a suspend.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.errors import PretakeError

__all__ = [
    "KernelClock",
    "Moment",
    "Offsets",
    "ahead_ns",
    "note_clocks",
    "offsets_of",
    "suspended_ns",
]

_PROC: Final = Path("/proc")
_MACHINES: Final = Path(f"time:[{0xEFFFFFFA}]")
"""The first time namespace: PROC_TIME_INIT_INO of the kernel's proc_ns.h."""
_READING_NS: Final = 1_000_000
"""Two clocks are not read in one moment; a shorter difference is no suspend."""
_NEAR_NS: Final = 50_000
_READINGS: Final = 20


@dataclass(frozen=True)
class Offsets:
    """How far ahead of the machine's a process's clocks are, in ns."""

    monotonic_ns: int = 0
    boottime_ns: int = 0


@dataclass(frozen=True)
class Moment:
    """One moment on the machine's two clocks, in ns."""

    monotonic_ns: int
    boottime_ns: int


def offsets_of(process: int | str) -> Offsets | None:
    """How far ahead of the machine's the clocks of a process are.

    Args:
        process: its id, or ``self``.

    Returns:
        None where that is not to be had: it has ended, it may not be looked at (that takes
        ptrace's read access), or it has left its namespace to the children it will make.
    """
    folder = _PROC / str(process)
    try:
        text = (folder / "timens_offsets").read_text("utf-8", "surrogateescape")
        # The file tells of the namespace for children.
        own = (folder / "ns/time").readlink()
        if own != (folder / "ns/time_for_children").readlink():
            return Offsets() if own == _MACHINES else None
    except FileNotFoundError:
        # It has ended (a zombie has its folder, and no namespace); or this is a kernel before
        # 769071ac9f20 ("ns: Introduce Time Namespace").
        without = not (_PROC / "self/ns/time").is_symlink()
        return Offsets() if without and folder.exists() else None
    except OSError:
        return None
    if not text:
        return None  # ended in between
    told = {name: int(s) * 10**9 + int(ns) for name, s, ns in map(str.split, text.splitlines())}
    return Offsets(told.get("monotonic", 0), told.get("boottime", 0))


class KernelClock:
    """Reads the machine's clocks.

    Raises:
        PretakeError: this process has clocks of its own, and cannot tell how far off they are.
    """

    def __init__(self) -> None:
        offsets = offsets_of("self")
        if offsets is None:
            raise PretakeError(
                "this process is in a time namespace that it made for its children",
                "run it as one of those: unshare --time --fork",
            )
        self._offsets = offsets

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return time.monotonic_ns() - self._offsets.monotonic_ns

    def moment(self) -> Moment:
        """Both clocks, as nearly at one moment as they can be read.

        A thread that loses its CPU between the two would look as if the machine had been
        suspended. So CLOCK_MONOTONIC is read on both sides, and the nearest of some pairs is used.
        """
        nearest: tuple[int, Moment] | None = None
        for _ in range(_READINGS):
            before_ns = self.now_ns()
            boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._offsets.boottime_ns
            apart_ns = self.now_ns() - before_ns
            if nearest is None or apart_ns < nearest[0]:
                nearest = apart_ns, Moment(before_ns + apart_ns // 2, boottime_ns)
            if apart_ns < _NEAR_NS:
                break
        assert nearest is not None
        return nearest[1]


def suspended_ns(begin: Moment, end: Moment) -> int:
    """How long the machine was suspended between two moments; 0 for not at all."""
    boottime_ns = end.boottime_ns - begin.boottime_ns
    asleep_ns = boottime_ns - (end.monotonic_ns - begin.monotonic_ns)
    return asleep_ns if asleep_ns >= _READING_NS else 0


def ahead_ns(pid: int) -> int | None:
    """How far ahead of the machine's a process's CLOCK_MONOTONIC is; None if not to be had."""
    offsets = offsets_of(pid)
    return None if offsets is None else offsets.monotonic_ns


def note_clocks(
    ahead: dict[str, int | None],
    pids: Iterable[int],
    ahead_of: Callable[[int], int | None] = ahead_ns,
) -> None:
    """Note of processes whose CLOCK_MONOTONIC is not known to be the machine's.

    Args:
        ahead: by process id, how far ahead in ns it is, None where that is not to be had; one
            that is on the machine's clock is not in it. What is there of another program or
            process with that id is replaced.
        pids: the processes.
        ahead_of: tells how far ahead of the machine's, in ns, the clock of one is, or None:
            a tracer that has given up its capabilities has to ask who kept them.
    """
    for pid in pids:
        ahead.pop(str(pid), None)
        ns = ahead_of(pid)
        if ns != 0:
            ahead[str(pid)] = ns
