"""What the runtime itself saw: its counters, and a row for each retake.

It is a second witness. It is written at another place in the code than the transitions that a
tracer probes, and with a clock read of its own, so that the two can be compared (``pretake
check``).

It takes no more memory for a long run than for a short one: times are counted as they come, and
the rows go to a temporary file in blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from reference_runtime.latencies import Latencies
from reference_runtime.locks import new_lock
from reference_runtime.log import ROW, Log
from tracer.trace.words import RUNTIME_REASONS

if TYPE_CHECKING:
    from mypy_extensions import i64

A_RETAKE: Final = 0
A_RUN: Final = 1


class Retake(NamedTuple):
    """One P taken from an M in a system call."""

    ts_ns: int
    """When P was released, by the host's monotonic clock."""
    enter_ns: int
    """When the system call was entered."""
    p: int
    tid: int
    """Thread that lost P."""
    goid: int
    reason: str
    """Word of :data:`tracer.trace.words.RUNTIME_REASONS`."""
    taker_tid: int
    """Thread that took P."""


class Run(NamedTuple):
    """The first goroutine that ran on a P after a retake."""

    p: int
    enter_ns: int
    """Of the call that lost P: so the retake is known."""
    run_ns: int
    run_tid: int
    run_goid: int


class Record:
    """Counters and rows of one run. All Ms count, so counters are changed by :meth:`add` alone."""

    def __init__(self) -> None:
        self.lock: Final = new_lock()
        """Guards the counters."""
        self.log = Log()
        self.retake_count: i64 = 0
        self.retake_ns = Latencies()
        """From the entry of a system call that lost its P (by retake or handoff) to the first
        goroutine that ran on that P; a P that went idle in between makes no value."""
        self.handoffs: i64 = 0
        """Ps given away before the call, by entersyscallblock."""
        self.needless: i64 = 0
        """Retakes and handoffs for calls that returned within ``NEEDLESS_NS``."""
        self.wakeups: i64 = 0
        """Parked Ms that were woken."""
        self.threads: i64 = 0
        """Ms that were made."""
        self.exit_slow: i64 = 0
        """Calls that returned and found no P."""
        self.policy_wakeups: i64 = 0
        """How often a thread woke up to look for Ps that could be retaken."""
        self.thief_sleeps: i64 = 0
        """Sleeps of 3 µs before a thief took a runnext (go1.21, runtime.runqgrab)."""
        self.thief_sleep_ns: i64 = 0
        """How long they took together, by the clock."""
        self.thief_sleep_cpu_ns: i64 = 0
        """CPU time of the thieves in them."""
        self.preempt_requests: i64 = 0
        """Goroutines asked to stop, each time."""
        self.preempted_cooperative: i64 = 0
        """Those that stopped at a check of their own."""
        self.preempted_async: i64 = 0
        """Those that were stopped where they were, in a kernel or in Python code; counted where
        they stop, and told at the end."""
        self.refused: dict[str, int] = {"not_wanted": 0, "unsafe_point": 0, "not_running_g": 0}
        """Signals that stopped nothing, by reason."""
        self.preempt_ns = Latencies()
        """From a request to the moment at which the goroutine's P was free."""
        self.stop_ns = Latencies()
        """Stop-the-world's times to stop."""
        self.suspend_ns = Latencies()
        """As long as ``suspend_g`` waited for a goroutine to stand still."""
        self.policy_cpu_ns: i64 = 0
        """CPU time of the threads that do nothing but watch for retakes."""

    def add(
        self,
        *,
        handoffs: i64 = 0,
        needless: i64 = 0,
        wakeups: i64 = 0,
        threads: i64 = 0,
        exit_slow: i64 = 0,
        policy_wakeups: i64 = 0,
        policy_cpu_ns: i64 = 0,
        preempt_requests: i64 = 0,
        preempted_cooperative: i64 = 0,
    ) -> None:
        """So many more of each."""
        self.lock.acquire()
        self.handoffs += handoffs
        self.needless += needless
        self.wakeups += wakeups
        self.threads += threads
        self.exit_slow += exit_slow
        self.policy_wakeups += policy_wakeups
        self.policy_cpu_ns += policy_cpu_ns
        self.preempt_requests += preempt_requests
        self.preempted_cooperative += preempted_cooperative
        self.lock.release()

    def thief_slept(self, ns: i64, cpu_ns: i64) -> None:
        """A thief slept so long before it took a runnext."""
        self.lock.acquire()
        self.thief_sleeps += 1
        self.thief_sleep_ns += ns
        self.thief_sleep_cpu_ns += cpu_ns
        self.lock.release()

    def retaken(
        self,
        ts_ns: i64,
        enter_ns: i64,
        p: i64,
        tid: i64,
        goid: i64,
        reason: i64,
        taker_tid: i64,
    ) -> None:
        """A P was retaken; the arguments are the fields of :class:`Retake`."""
        self.lock.acquire()
        self.retake_count += 1
        self.lock.release()
        self.log.add((A_RETAKE, ts_ns, enter_ns, p, tid, goid, reason, taker_tid))

    def ran(self, p: i64, enter_ns: i64, run_ns: i64, run_tid: i64, run_goid: i64) -> None:
        """A goroutine ran on a P after a retake; the arguments are the fields of :class:`Run`."""
        self.log.add((A_RUN, run_ns, enter_ns, p, run_tid, run_goid, 0, 0))

    def rows(self) -> Iterator[Retake | Run]:
        """The retakes and the runs after them, in the order in which they happened."""
        for block in self.log.blocks():
            for first in range(0, len(block), ROW):
                kind, ts_ns, enter_ns, p, tid, goid, reason, taker = block[first : first + ROW]
                if kind == A_RETAKE:
                    yield Retake(ts_ns, enter_ns, p, tid, goid, RUNTIME_REASONS[reason], taker)
                else:
                    yield Run(p, enter_ns, ts_ns, tid, goid)

    @property
    def retakes(self) -> list[Retake]:
        """All of them at once: for runs that are known to be short."""
        return [row for row in self.rows() if isinstance(row, Retake)]

    def counters(self) -> dict[str, int]:
        """The counters by name, as a result's ``runtime`` part shows them."""
        return {
            "retakes": int(self.retake_count),
            "handoffs": int(self.handoffs),
            "needless": int(self.needless),
            "wakeups": int(self.wakeups),
            "threads": int(self.threads),
            "exit_slow": int(self.exit_slow),
            "policy_wakeups": int(self.policy_wakeups),
            "thief_sleeps": int(self.thief_sleeps),
            "thief_sleep_ns": int(self.thief_sleep_ns),
            "thief_sleep_cpu_ns": int(self.thief_sleep_cpu_ns),
            "preempt_requests": int(self.preempt_requests),
            "preempted_async": int(self.preempted_async),
            "preempted_cooperative": int(self.preempted_cooperative),
            **{f"refused_{reason}": count for reason, count in self.refused.items()},
            "policy_cpu_ns": int(self.policy_cpu_ns),
        }

    def write(self, path: Path) -> None:
        """Write the retakes to ``path``, one JSON object a line: who lost which P when."""
        with path.open("w", encoding="utf-8") as file:
            for retake in self.rows():
                if isinstance(retake, Retake):
                    row = retake._asdict()
                    del row["taker_tid"]
                    file.write(json.dumps(row) + "\n")

    def append(self, fd: int) -> None:
        """Append the retakes to an open file, for a tracer that can see none of it.

        The same with all fields of :class:`Retake`, and the last three of :class:`Run`, which
        are null where nothing ran. A retake is written when what ran after it is known.
        """
        waiting: dict[int, Retake] = {}
        with open(fd, "a", encoding="utf-8", closefd=False) as file:
            for row in self.rows():
                before = waiting.pop(row.p, None)
                if isinstance(row, Retake):
                    waiting[row.p] = row
                    if before is not None:
                        file.write(line(before, None))
                elif before is not None:
                    own = row if row.enter_ns == before.enter_ns else None
                    file.write(line(before, own))
            for retake in waiting.values():
                file.write(line(retake, None))


def line(retake: Retake, run: Run | None) -> str:
    """A retake with what ran after it, as a line of JSON."""
    row = retake._asdict()
    row["run_ns"] = None if run is None else run.run_ns
    row["run_tid"] = None if run is None else run.run_tid
    row["run_goid"] = None if run is None else run.run_goid
    return json.dumps(row) + "\n"
