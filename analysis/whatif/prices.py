"""What each step costs on the captured machine, for a replay; read off the capture.

A P's way from one thread to the next is a chain of short steps, and a capture sees both ends of
each. So a price is the time between two rows of the trace, and is not fitted:

=================  ==============================================================================
``probe_ns``       ``handoff`` to the ``startm`` or ``pidle`` that the same thread comes to next:
                   there is nothing between but a queue and the tracer's own probe
``wake_call_ns``   ``startm`` to the wake-up, less the probe
``wake_rest_ns``   that wake-up to the waker's next system call
``wakeup_…``       wake-up to the thread's switch-in, where no thread of the process had the CPU;
                   not those that waited for other programs, of which a replay knows nothing
``timer_wakeup_…`` the same of those that an interrupt woke
``unpark_ns``      the switch-in of a parked M to its ``acquirep``
``find_ns``        ``acquirep`` to ``run``, less the probe
``gil_signal_ns``  ``wake_call_ns``, and a wake-up that no ``startm`` told to the system call that
                   its thread went on to make: so it was for the interpreter's lock
``preempt_…``      of threads woken while their CPU had another one of the process: how many took
                   it at once; of the monitor (``light``) and of those that it woke (``by_light``)
                   by themselves
``timer_spread_…`` the monitor's first sleep after a retake is of 20 µs, its longest of 10 ms: what
                   it slept beyond that
``round_ns``       the monitor's return from a sleep to the ``retake``, or to its next sleep
=================  ==============================================================================

Steps in which the thread lost its CPU are left out, because the replay itself has to find the
waits for a CPU and for the interpreter's lock. A price with a large spread is drawn at random
from the quantiles of the capture; for the others the median is used.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.names import syscall_numbers
from analysis.ptime.timeline import rows_around
from analysis.stats.quantiles import quantiles, values_at
from analysis.windowed.asof import NOT_FOUND, Ints, Timelines, take
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["Price", "busy_cpus", "prices"]

Price = int | tuple[int, ...]

_KIND = TABLES["runtime"].column("kind")
_REASON = TABLES["runtime"].column("reason")
_MONITORS = tuple(_REASON.code(word) for word in ("sysmon", "thread_state"))
_OF_P = tuple(_KIND.code(word) for word in ("acquirep", "run", "stopm"))
"""What only an M that has or had a P does."""
_PREEMPTED = TABLES["sched_switch"].column("prev_state").code("preempted")
_SLEEPS = ("nanosleep", "clock_nanosleep", "futex")
"""How a monitor sleeps: the last with a timeout."""

FIRST_SLEEP_NS, LONGEST_SLEEP_NS = 20_000, 10_000_000
"""The monitor's sleep after a round that took something, and when nothing goes on for long
(go1.21, runtime.sysmon)."""
_LATEST_NS = 1_000_000
"""A sleep that took so much longer than it was asked for was not only late."""
_OTHERS_NS = 100_000
"""A thread that waits so long for a CPU that no thread of its process has waits for a program."""
_FEWEST = 20
"""Fewer steps tell no price."""
_SPREAD = 64
_SOON_NS = 20_000
"""A thread that takes a CPU from another does so within a system call of that one's."""
_SHARE = 0.05
"""A CPU that the process hardly ever got was not there for it: others kept it busy."""


def prices(trace: Trace, begin: int, end: int) -> dict[str, Price]:
    """The prices that a span of a capture tells, by their names in the simulator's ``Costs``.

    Args:
        trace: the trace.
        begin: begin of the span, ns.
        end: its end. Nothing outside is looked at.

    Raises:
        PretakeError: the trace cannot be read.
    """
    steps = _Steps(trace, begin, end)
    found: dict[str, int] = {}
    probe = 0
    if steps.tells_run:
        # Go's probes are on few of its functions; there their price is part of the step's.
        probe = found["probe_ns"] = _usual(steps.handoff_to_next()) or 0
    call, rest = steps.wake_calls()
    for name, values, less in (
        ("wake_call_ns", call, probe),
        ("wake_rest_ns", rest, 0),
        ("gil_signal_ns", steps.lock_wakes(), -(_usual(call) or 0) + probe),
        ("unpark_ns", steps.unparks(), 0),
        ("find_ns", steps.finds(), probe),
        ("round_ns", steps.rounds(), 0),
    ):
        median = _usual(values)
        if median is not None:
            found[name] = max(median - less, 0)
    by_thread, by_timer, preempting = steps.wakeups()
    for name, took in preempting.items():
        # Who is hardly ever woken on a busy CPU is taken for one of the others.
        took = took if len(took) >= _FEWEST else preempting["preempt_percent"]
        if len(took) >= _FEWEST:
            found[name] = round(100 * float(np.mean(took)))
    if "unpark_ns" in found:
        # The rest of a switch is CPU time of the thread that comes, and stands in its steps.
        found["context_switch_ns"] = 0
    spreads = {
        name: _spread(values)
        for name, values in (
            ("wakeup_spread_ns", by_thread),
            ("timer_wakeup_spread_ns", by_timer),
            ("timer_spread_ns", steps.late_timers()),
        )
        if len(values) >= _FEWEST
    }
    return {**found, **spreads}


def busy_cpus(trace: Trace, begin: int, end: int) -> int:
    """How many CPUs the process had: those on which more than a few of its switches were."""
    rows = rows_around(trace, "sched_switch", ("ts_ns", "cpu"), [(begin, end)])
    cpus = rows["cpu"].to_numpy()
    cpus = cpus[cpus >= 0]
    if not len(cpus):
        return 1
    return max(int((np.bincount(cpus) > _SHARE * len(cpus)).sum()), 1)


class _Steps:
    """The steps of a span, each as an array of ns."""

    def __init__(self, trace: Trace, begin: int, end: int) -> None:
        span = [(begin, end)]
        names: Iterable[str] = ("ts_ns", "tid", "target_tid", "kind", "reason")
        self._runtime = rows_around(trace, "runtime", tuple(names), span)
        names = ("ts_ns", "prev_tid", "next_tid", "prev_state")
        self._switches = rows_around(trace, "sched_switch", tuple(names), span)
        self._wakeups = rows_around(trace, "sched_wakeup", ("ts_ns", "tid", "waker_tid"), span)
        self._calls = _calls_in(trace, begin, end)
        machine = trace.manifest.arch
        self._futex, self._sleep = (
            self._calls["nr"].isin(syscall_numbers(machine, *names))
            for names in (("futex",), _SLEEPS)
        )
        kinds = self._runtime["kind"].to_numpy()
        self.tells_run = bool((kinds == _KIND.code("run")).any())
        left = self._switches[self._switches["prev_tid"] > 0]
        self._left = Timelines(left["prev_tid"], left["ts_ns"])
        self._left_ns = left["ts_ns"]
        came = self._switches[self._switches["next_tid"] > 0]
        self._came = came
        self._came_lines = Timelines(came["next_tid"], came["ts_ns"])
        # The monitor sleeps again and again, and never has a P.
        with_p = self._runtime[self._runtime["kind"].isin(_OF_P)]["tid"]
        times = self._calls[self._sleep]["tid"].value_counts()
        often = times[times >= _FEWEST].index.to_numpy(np.int64)
        self._monitors = np.setdiff1d(often, with_p.unique())
        self._threads = np.union1d(self._runtime["tid"].unique(), self._monitors)

    def handoff_to_next(self) -> Ints:
        """From each handoff to what its thread told next, if that is what became of P."""
        rows = self._runtime.sort_values(["tid", "ts_ns"], kind="stable")
        kind, tid, ts = (rows[name].to_numpy() for name in ("kind", "tid", "ts_ns"))
        became = np.isin(kind[1:], (_KIND.code("startm"), _KIND.code("pidle")))
        pair = (kind[:-1] == _KIND.code("handoff")) & became & (tid[:-1] == tid[1:])
        return self._unbroken(tid[:-1][pair], ts[:-1][pair], ts[1:][pair])

    def wake_calls(self) -> tuple[Ints, Ints]:
        """From ``startm`` to the wake-up, and from there to the waker's next system call."""
        began = self._of_kind("startm")
        began = began[began["target_tid"] > 0]
        tid, ts = began["tid"].to_numpy(), began["ts_ns"].to_numpy()
        woken = self._woken_after(began["target_tid"].to_numpy(), ts, tid)
        seen = woken != UNKNOWN
        tid, ts, woken = tid[seen], ts[seen], woken[seen]
        lines = Timelines(self._calls["tid"], self._calls["enter_ns"])
        after = take(self._calls["enter_ns"], lines.first_after(tid, woken), UNKNOWN)
        return self._unbroken(tid, ts, woken), self._unbroken_soon(tid, woken, after)

    def unparks(self) -> Ints:
        """From the switch-in of an M that ``startm`` woke to its ``acquirep``."""
        began = self._of_kind("startm")
        began = began[began["target_tid"] > 0]
        target, ts = began["target_tid"].to_numpy(), began["ts_ns"].to_numpy()
        in_ns = take(self._came["ts_ns"], self._came_lines.first_after(target, ts), UNKNOWN)
        got = self._of_kind("acquirep")
        lines = Timelines(got["tid"], got["ts_ns"])
        got_ns = take(got["ts_ns"], lines.first_after(target, ts), UNKNOWN)
        seen = (in_ns != UNKNOWN) & (got_ns > in_ns)
        return self._unbroken(target[seen], in_ns[seen], got_ns[seen])

    def finds(self) -> Ints:
        """From each ``acquirep`` to the ``run`` on the same thread."""
        rows = self._runtime.sort_values(["tid", "ts_ns"], kind="stable")
        kind, tid, ts = (rows[name].to_numpy() for name in ("kind", "tid", "ts_ns"))
        pair = (kind[:-1] == _KIND.code("acquirep")) & (kind[1:] == _KIND.code("run"))
        pair &= tid[:-1] == tid[1:]
        return self._unbroken(tid[:-1][pair], ts[:-1][pair], ts[1:][pair])

    def lock_wakes(self) -> Ints:
        """From wake-ups of threads in a futex to the next system call of who did it."""
        calls = self._calls[self._futex]
        rows = self._wakeups[self._wakeups["waker_tid"].isin(self._threads)]
        lines = Timelines(calls["tid"], calls["enter_ns"])
        at = lines.last_before(rows["tid"], rows["ts_ns"])
        inside = take(calls["exit_ns"], at, UNKNOWN) > rows["ts_ns"].to_numpy()
        began = self._of_kind("startm")
        lines = Timelines(began["target_tid"], began["ts_ns"])
        told = take(began["ts_ns"], lines.last_before(rows["tid"], rows["ts_ns"]), UNKNOWN)
        entered = take(calls["enter_ns"], at, UNKNOWN)
        rows = rows[inside & (told < entered)]
        tid, ts = rows["waker_tid"].to_numpy(), rows["ts_ns"].to_numpy()
        lines = Timelines(self._calls["tid"], self._calls["enter_ns"])
        after = take(self._calls["enter_ns"], lines.first_after(tid, ts), UNKNOWN)
        return self._unbroken_soon(tid, ts, after)

    def rounds(self) -> Ints:
        """From the monitor's return from a sleep to its ``retake``, else to its next sleep."""
        retakes = self._monitor_retakes()
        sleeps = self._sleeps()
        tid, ts = retakes["tid"].to_numpy(), retakes["ts_ns"].to_numpy()
        if len(ts) < _FEWEST:
            tid, ts = sleeps["tid"].to_numpy(), sleeps["enter_ns"].to_numpy()
        lines = Timelines(sleeps["tid"], sleeps["exit_ns"])
        back = take(sleeps["exit_ns"], lines.last_before(tid, ts), UNKNOWN)
        # A round that takes two Ps back begins once.
        _, first = np.unique(np.c_[tid, back], axis=0, return_index=True)
        first = first[back[first] != UNKNOWN]
        return self._unbroken(tid[first], back[first], ts[first])

    def late_timers(self) -> Ints:
        """What the monitor's sleeps took beyond what it asked for, where that is known."""
        retakes = self._monitor_retakes()
        sleeps = self._sleeps()
        lines = Timelines(sleeps["tid"], sleeps["enter_ns"])
        at = lines.first_after(retakes["tid"].to_numpy(), retakes["ts_ns"].to_numpy())
        at = np.unique(at[at != NOT_FOUND])
        slept = sleeps["blocked_ns"].to_numpy(np.int64)
        late = np.r_[slept[at] - FIRST_SLEEP_NS, slept - LONGEST_SLEEP_NS]
        return np.asarray(late[(late >= 0) & (late < _LATEST_NS)], np.int64)

    def wakeups(self) -> tuple[Ints, Ints, dict[str, np.ndarray]]:
        """From wake-ups to switch-ins, by threads and by timers, where no thread of the process
        had the CPU; of the others by the price that it tells, whether they took it."""
        rows = self._wakeups[self._wakeups["tid"].isin(self._threads)]
        tid, ts = rows["tid"].to_numpy(), rows["ts_ns"].to_numpy()
        waker = rows["waker_tid"].to_numpy()
        at = self._came_lines.first_after(tid, ts)
        latency = take(self._came["ts_ns"], at, UNKNOWN) - ts
        had = np.isin(take(self._came["prev_tid"], at, UNKNOWN), self._threads)
        free = ~had
        took = take(self._came["prev_state"], at, UNKNOWN) == _PREEMPTED
        # An interrupt "wakes" a thread too that has not left its CPU yet.
        left = take(self._left_ns, self._left.first_after(tid, ts), UNKNOWN)
        asleep = (left == UNKNOWN) | (left > ts + latency)
        seen = (at != NOT_FOUND) & (latency > 0) & asleep
        ours = np.isin(waker, self._threads)
        free &= latency < _OTHERS_NS
        light, by_light = np.isin(tid, self._monitors), np.isin(waker, self._monitors)
        took &= latency < _SOON_NS
        busy = seen & had & ours
        return (
            latency[seen & free & ours],
            latency[seen & free & ~ours],
            {
                "preempt_percent": took[busy & ~light & ~by_light],
                "preempt_light_percent": took[busy & light],
                "preempt_by_light_percent": took[busy & by_light],
            },
        )

    def _of_kind(self, kind: str) -> pd.DataFrame:
        return self._runtime[self._runtime["kind"] == _KIND.code(kind)]

    def _monitor_retakes(self) -> pd.DataFrame:
        rows = self._of_kind("retake")
        return rows[rows["reason"].isin(_MONITORS)]

    def _sleeps(self) -> pd.DataFrame:
        calls = self._calls
        own = self._sleep & calls["tid"].isin(self._monitors)
        # No sleep is shorter; what is, was a wait for a lock.
        return calls[own & (calls["blocked_ns"] >= FIRST_SLEEP_NS)]

    def _woken_after(self, tid: Ints, ts: Ints, waker: Ints) -> Ints:
        """The first wake-up of each thread after a moment, if that waker did it; else unknown."""
        lines = Timelines(self._wakeups["tid"], self._wakeups["ts_ns"])
        at = lines.first_after(tid, ts)
        by = take(self._wakeups["waker_tid"], at, UNKNOWN)
        return np.where(by == waker, take(self._wakeups["ts_ns"], at, UNKNOWN), UNKNOWN)

    def _unbroken_soon(self, tid: Ints, begin: Ints, end: Ints) -> Ints:
        """The same of steps up to a call, if the runtime told of nothing before it.

        A call that did not block has no row; then it is the runtime's next word that comes first.
        """
        lines = Timelines(self._runtime["tid"], self._runtime["ts_ns"])
        told = take(self._runtime["ts_ns"], lines.first_after(tid, begin), UNKNOWN)
        seen = (end != UNKNOWN) & ((told == UNKNOWN) | (told > end))
        return self._unbroken(tid[seen], begin[seen], end[seen])

    def _unbroken(self, tid: Ints, begin: Ints, end: Ints) -> Ints:
        """Lengths of the steps in which the thread did not lose its CPU."""
        left = take(self._left_ns, self._left.first_after(tid, begin), UNKNOWN)
        return np.asarray((end - begin)[(left == UNKNOWN) | (left >= end)], np.int64)


def _calls_in(trace: Trace, begin: int, end: int) -> pd.DataFrame:
    """Table syscall of a span, by its own time column."""
    names = ("enter_ns", "exit_ns", "tid", "nr", "blocked_ns")
    rows = rows_around(trace, "syscall", names, [(begin, end)])
    return rows[rows["enter_ns"] != UNKNOWN].sort_values("enter_ns", kind="stable")


def _usual(values: Ints) -> int | None:
    """The median, where there are enough values for one."""
    return quantiles(values, 0.5)["p50"] if len(values) >= _FEWEST else None


def _spread(values: Ints) -> tuple[int, ...]:
    """Values that stand for a distribution: its quantiles at equal distances."""
    at = (np.arange(_SPREAD) + 0.5) / _SPREAD
    return tuple(values_at(values, at).tolist())
