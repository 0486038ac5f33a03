"""Preemption: a goroutine is asked to stop, and stops or refuses.

Each request poisons the goroutine's stack guard, which it looks at where it enters a function of
the runtime (``goroutines.checkpoint``). That is all there is in Go up to 1.13: a loop that calls
nothing goes on. As from Go 1.14, a signal is sent to the goroutine's thread besides. If it meets
the thread at a safe point, the thread stops there, in the signal's handler, and cannot run
anything else: so it is not the thread itself that gives its P away but whoever learns of the stop
first, the monitor or the one that asked (``take_stopped``). The goroutine goes to the global
queue like any other that was preempted. It is *bound* to the stopped thread: an M that finds it
gives that thread its P, lets it go on and parks (Go: startlockedm).

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
- *Waiting for each signal's outcome* where it was sent: a thread that waits for a CPU would hold
  the monitor up. So the answer comes whenever it comes, and the monitor's sleep ends with it.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from reference_runtime.gmp import G_RUNNING, P_RUNNING, P_SYSCALL, PREEMPT_OFF, STACK_PREEMPT
from reference_runtime.transitions import BY_TIME_SLICE, PREEMPT_REQUEST, transition

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import G, M, P, Sched

SIGURG: Final = int(signal.SIGURG)
"""Go's choice: programs that know it expect it for no reason, and debuggers let it pass."""


def preemptone(sched: Sched, m: M, p: P, reason: i64) -> bool:
    """Ask the goroutine on P to stop (Go: preemptone); False if nobody was asked.

    Nobody is where P runs no goroutine, or was asked already and has not had the signal yet.

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
    if p.status != P_SYSCALL or target is None or target.asked or target.holds_world:
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
    sched.record.preempt_requests += 1
    transition(PREEMPT_REQUEST, m, p, g, reason, target.tid)


def withdraw(sched: Sched, m: M, g: G) -> None:
    """G, which was asked to stop, has left M, or runs no more: on M's own thread."""
    m.asked = False
    g.stackguard = 0
    if sched.stopper is not None:
        sched.stopper.withdraw(m.slot)
