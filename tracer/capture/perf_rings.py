"""The rings of a capture by perf events: one for each CPU that the machine can have.

An event of a thread can be made for a CPU that is not there: the thread may be moved to it later,
when it has come up, or when the thread gives itself other CPUs than the tracer may use. A
machine-wide event needs a CPU that is there. So one is made whenever a CPU comes up, and
that is a moment late.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tracer.errors import PretakeError
from tracer.kernel import bpf
from tracer.kernel.perf_events import SwitchEvent
from tracer.kernel.table_rings import spare_cpu_bytes
from tracer.trace.unknown import Missing

__all__ = ["PerfRings"]

_MLOCK: Final = Path("/proc/sys/kernel/perf_event_mlock_kb")
_DESCRIPTORS_KEPT: Final = 256
"""Of those that the tracer may have, for what it opens besides events."""


class PerfRings:
    """The events of threads, or of the machine, and the ring of each CPU.

    Args:
        tids: the threads; empty: every thread of the machine (needs CAP_PERFMON).
        cpu_bytes: memory for the ring of one CPU that the tracer may use. Rings of others are
            smaller where there are many.
        from_exec: tell nothing before the thread's next exec.

    Attributes:
        missing: what is not seen for want of an event.

    Raises:
        PretakeError: the kernel forbids it, or a thread is gone.
    """

    def __init__(self, tids: Sequence[int], cpu_bytes: int, *, from_exec: bool = False) -> None:
        self.missing: list[Missing] = []
        self._tids = list(tids)
        self._pages = ring_pages(cpu_bytes)
        self._from_exec = from_exec
        self._rings: dict[int, SwitchEvent] = {}
        self._more: list[SwitchEvent] = []
        self._machine_wide = not tids
        self._seen = set(bpf.online_cpus())
        present = sorted(self._seen if self._machine_wide else os.sched_getaffinity(0))
        self._gone: list[tuple[int, SwitchEvent]] = []
        possible = bpf.possible_cpus()
        # One for each event, and Python's mmap has one of its own for each ring.
        of_cpu = max(len(self._tids), 1) + 1
        room = _descriptors_left(possible * of_cpu + _DESCRIPTORS_KEPT) - _DESCRIPTORS_KEPT
        try:
            for cpu in present:
                self._open(cpu, self._pages)
            if not self._machine_wide:
                others = [cpu for cpu in range(possible) if cpu not in present]
                self._open_others(others, room // of_cpu - len(present))
        except PretakeError:
            self.close()
            raise

    def _open(self, cpu: int, pages: int) -> None:
        for tid in self._tids or [-1]:
            event = SwitchEvent(
                tid,
                cpu,
                pages=pages,
                watermark_bytes=0,
                inherit=not self._machine_wide,
                tasks=True,
                from_exec=self._from_exec,
                share=self._rings.get(cpu),
            )
            if cpu in self._rings:
                self._more.append(event)
            else:
                self._rings[cpu] = event

    def _open_others(self, cpus: Sequence[int], room: int) -> None:
        """For CPUs that the target may get to; there are descriptors for so many of them."""
        pages = spare_pages(self._pages, len(cpus))
        why = "the tracer may have no more descriptors"
        for number, cpu in enumerate(cpus):
            if number < room:
                try:
                    self._open(cpu, pages)
                    continue
                except PretakeError as error:
                    why = error.problem
            self.missing.append(
                Missing(
                    f"switches on {len(cpus) - number} CPUs from {cpu} on, should the target get "
                    "there",
                    why,
                    "raise the limits of open files (ulimit -n) and of locked memory (ulimit -l)",
                )
            )
            return

    def look(self) -> list[int]:
        """The CPUs that came up since the last look; a machine-wide event is made for each."""
        there = set(bpf.online_cpus())
        came = sorted(there - self._seen)
        self._seen = there
        if not self._machine_wide:
            return came
        for cpu in came:
            # One of before it went tells nothing any more, but may have what was not read yet.
            if cpu in self._rings:
                self._gone.append((cpu, self._rings.pop(cpu)))
            try:
                self._open(cpu, self._pages)
                what = f"the first switches on CPU {cpu}"
                why = "it came up during the capture, and a machine-wide event is made only then"
            except PretakeError as error:
                what, why = f"switches on CPU {cpu}, which came up", error.problem
            self.missing.append(Missing(what, why))
        return came

    def to_read(self, *, every: bool) -> Iterator[tuple[int, SwitchEvent]]:
        """The rings that may have something, by CPU.

        Args:
            every: also those of CPUs that were not there at the last look. They are many on
                some machines, and to read a ring takes time.
        """
        while self._gone:
            cpu, event = self._gone.pop()
            yield cpu, event
            event.close()
        for cpu, event in self._rings.items():
            if every or cpu in self._seen:
                yield cpu, event

    def close(self) -> None:
        """Give all events back."""
        for event in (*self._more, *self._rings.values(), *(event for _, event in self._gone)):
            event.close()
        self._rings.clear()
        self._more.clear()


def ring_pages(limit: int) -> int:
    """A power of two; an ordinary user's rings have to fit into what he may lock."""
    if os.geteuid() != 0:
        limit = min(limit, int(_MLOCK.read_text("utf-8")) * 1024 - mmap.PAGESIZE)
    return _power_of_two(limit)


def spare_pages(pages: int, absent: int) -> int:
    """Of a CPU that the target may get to: a power of two, at most ``pages``.

    Args:
        pages: of a CPU that it has.
        absent: how many such CPUs there are. What an ordinary user may lock beyond his rings is
            for all of them.
    """
    limit = spare_cpu_bytes(pages * mmap.PAGESIZE, absent)
    most, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if os.geteuid() != 0 and most != resource.RLIM_INFINITY:
        limit = min(limit, most // max(absent, 1) - mmap.PAGESIZE)
    return _power_of_two(limit)


def _power_of_two(limit: int) -> int:
    return 1 << (max(limit // mmap.PAGESIZE, 1).bit_length() - 1)


def _descriptors_left(wanted: int) -> int:
    """How many more the tracer may have; its limit is raised if that is less than is wanted."""
    used = len(list(Path("/proc/self/fd").iterdir()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft - used < wanted:
        most = used + wanted if hard == resource.RLIM_INFINITY else min(used + wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft - used
