"""Set up and end preemption by signals, for a run and for an M; tell that a goroutine has stopped.

There is a stopper only where goroutines are preempted by signals (``host.Stopper``). Without one,
threads that wait for a stop wait on a note.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_runtime.gmp import PREEMPT_ASYNC

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M, Sched


def begin_preemption(sched: Sched) -> None:
    """Install the stopper, before the first M."""
    if sched.preempt == PREEMPT_ASYNC:
        sched.stopper = sched.host.new_stopper()


def end_preemption(sched: Sched) -> None:
    """Remove the stopper, after the last M has left. An M stuck in a call gets no more signals."""
    if sched.stopper is not None:
        refused = sched.record.refused
        counts = sched.stopper.end()
        sched.record.preempted_async = counts[0]
        for reason, count in zip(refused, counts[1:], strict=True):
            refused[reason] = count
        sched.stopper = None


def m_begins(sched: Sched, m: M) -> None:
    """Make a slot for M, on its thread: signals that come from here on are for M."""
    if sched.stopper is not None:
        m.slot = sched.stopper.thread_begins(m)
        sched.stopper.runs_goroutines(m.slot, True)


def m_ends(sched: Sched, m: M) -> None:
    """Free M's slot, on its thread."""
    if m.slot and sched.stopper is not None:
        # Who asks for a stop holds the lock: the slot is not another M's before he has.
        p = m.p
        p.lock.acquire()
        m.slot = 0
        p.lock.release()
        sched.stopper.thread_ends()


def stopper_runs(sched: Sched, m: M, yes: bool) -> None:
    """Whether M is about to run goroutines, or to park."""
    if sched.stopper is not None:
        sched.stopper.runs_goroutines(m.slot, yes)


def tell_stop(sched: Sched) -> None:
    """Tell the threads that wait for a stop that a goroutine has stopped."""
    if sched.stopper is None:
        sched.stop_note.wakeup()
    else:
        sched.stopper.announce()


def stops_seen(sched: Sched) -> i64:
    """How many stops there were, for `wait_for_stop` (``stopped.py``)."""
    return 0 if sched.stopper is None else sched.stopper.count()
