"""Preemption: a goroutine is asked to stop, and stops or refuses.

Example: a loop without calls has run for 10 ms. The monitor asks it to stop, in two ways:

- It poisons the goroutine's stack guard. The goroutine checks the guard when it enters a
  function of the runtime (``goroutines.checkpoint``). Go up to 1.13 has only this, and the loop
  would go on.
- It sends a signal to the goroutine's thread, as Go does from 1.14 on. If the thread is at a safe
  point, it stops there, in the handler of the signal.

A stopped thread cannot run anything, so it cannot give its P away. The monitor, or the M that
asked, does that when it learns of the stop (``take_stopped``). The goroutine goes to the global
queue, like any preempted goroutine. It is *bound* to the stopped thread: an M that takes it from
the queue gives its P to that thread, lets the thread go on, and parks (Go: startlockedm).

Python code of a goroutine has no safe points for a signal. There a trace function, set for one
stop (``_lines.c``), stops the thread at the next line of the program, in the same slot and with
the same consequences.

Rejected
--------
- *Switching stacks* (swapcontext, siglongjmp) so that the thread itself runs the scheduler, as
  Go's asyncPreempt does. Below a kernel's frame lie CPython's own frames, and the interpreter
  keeps its thread state, recursion depth and exception stack for each thread: a second
  interpreter loop on another stack of the same thread works only as far as greenlet takes it,
  which cannot switch without the GIL, and a signal's handler cannot get the GIL.
- *Raising an exception in the goroutine* (``PyThreadState_SetAsyncExc``): it is cooperative, at
  the interpreter's own checks, and loses the work done so far.
- *A handler that only sets a flag for the kernel to look at*: that is a check in the loop, and
  the subject here is a loop without one.
- *Waiting for the outcome of each signal* where it is sent: if the thread waits for a CPU, the
  monitor would wait too. Instead, the outcome ends the monitor's sleep when it comes.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from reference_runtime.gmp import G_RUNNING, P_RUNNING, PREEMPT_OFF, STACK_PREEMPT
from reference_runtime.processors import in_syscall
from reference_runtime.transitions import BY_TIME_SLICE, PREEMPT_REQUEST, transition

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import G, M, P, Sched

SIGURG: Final = int(signal.SIGURG)
"""Go's choice: programs that know it expect it for no reason, and debuggers let it pass."""


def preemptone(sched: Sched, m: M, p: P, reason: i64) -> bool:
    """Ask the goroutine on P to stop (Go: preemptone); False if it was not asked.

    It is not asked if P runs no goroutine, or if an earlier signal has not arrived yet.

    Args:
        m: the caller's M; it does not ask itself.
        p: any P.
        reason: index in ``RUNTIME_REASONS``.
    """
    if sched.preempt == PREEMPT_OFF:
        return False
    stopper = sched.stopper
    now_ns = sched.host.nanotime()
    p.lock.acquire()
    target = p.m
    if p.status != P_RUNNING or target is None or target is m or target.holds_world:
        p.lock.release()
        return False
    g = target.curg
    if g.status != G_RUNNING:
        p.lock.release()
        return False
    if stopper is None:
        again = target.asked
    else:
        again = not target.slot or not stopper.ask(target.slot, target.tid, p, g)
    if again:
        p.lock.release()
        return False
    poison(sched, m, p, target, reason, now_ns)
    if stopper is not None:
        sched.host.tgkill(target.tid, SIGURG)
    return True


def preemptall(sched: Sched, m: M, reason: i64) -> None:
    """Ask all goroutines but the caller's to stop (Go: preemptall)."""
    for p in sched.allp:
        preemptone(sched, m, p, reason)


def ask_at_return(sched: Sched, m: M, p: P) -> None:
    """Have the goroutine that is in a system call stop as it returns, if P is still its own.

    Go takes P from it in the call instead (sysretake). Policies that retake only from calls
    that block would let one that makes call after call keep P for ever.
    """
    if sched.preempt == PREEMPT_OFF:
        return
    now_ns = sched.host.nanotime()
    p.lock.acquire()
    target = p.m
    if not in_syscall(sched, p) or target is None or target.asked or target.holds_world:
        p.lock.release()
        return
    poison(sched, m, p, target, BY_TIME_SLICE, now_ns)


def poison(sched: Sched, m: M, p: P, target: M, reason: i64, now_ns: i64) -> None:
    """Ask the goroutine that ``target`` has on P. P's lock is held, and let go here."""
    g = target.curg
    if not target.asked:
        target.asked_ns = now_ns
        target.asked = True
    g.stackguard = STACK_PREEMPT
    p.lock.release()
    sched.record.add(preempt_requests=1)
    transition(PREEMPT_REQUEST, m, p, g, reason, target.tid)


def withdraw(sched: Sched, m: M, g: G) -> None:
    """G, which was asked to stop, has left M, or runs no more: on M's own thread."""
    m.asked = False
    g.stackguard = 0
    if sched.stopper is not None:
        sched.stopper.withdraw(m.slot)
