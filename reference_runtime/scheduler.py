"""The scheduler: which goroutine runs, on which thread, and how a P finds its next M.

Concepts
--------
- A **G** is a goroutine, a coroutine that any thread may resume. An **M** is a thread of the
  host. A **P** is the right to run goroutines; there are ``procs`` of them. An M needs a P to
  run a G, but not to wait in a system call.
- A runnable G is on exactly one queue: the local queue of a P, or the global queue. ``gmp.py`` has
  the states of G and P, and for each state who owns the object and who may change it.
- An M without work is parked on its note, in the list ``midle``. There are two exceptions. An M
  that *spins* holds a P and looks once through the queues of the others before it parks. The
  *poller* has no P and waits for the first timer or descriptor.
- An M that makes work wakes another M only if a P is idle and no M spins (``wakep``). An M that
  stops spinning says so first, and then looks through all queues once more. With these two rules
  no wake-up is lost, as in Go.
- A P in a system call belongs to its M until it is retaken. So a call that returns soon needs no
  queue and no other thread. The policy decides who retakes and when (``policies/``).

Locks, and how free of races this is
------------------------------------
Every field that several Ms change is changed under a lock, and no host call that may switch
threads is made under one. Interpreted, these are real locks. Compiled on a Python with a GIL
they do nothing, since a compiled function keeps the GIL from one blocking call to the next:
critical sections here contain no such call. Nor do they make an object or drop the last
reference to one that is not ours: a collection or a finaliser might run there, and release the
GIL. (To set an attribute drops what it held *before* the new value stands there, in mypyc: what
several threads set must never be the last reference to something that closes a file.) What does
*not* hold: anything read before a call of the host is stale after it. On a Python without a GIL
the real locks are used, compiled or not, and Ms run in parallel (``Sched.parallel``): there, who
writes one field and then reads another, while somebody else does so the other way round, meets him
under a lock in between (``world.suspend``, ``processors.queues_hold_work``).

A G that parks is not locked against its waker: the waker may come while the G is still leaving
its M, and then leaves a token that the M finds (``after_switch``).

Left out, unless asked for (``like.py``)
----------------------------------------
- *A runnext slot.* Go has one so that a pair that talks over a channel stays together. A pair in
  a short queue switches as fast. It stands at the head of the queue, and not beside it, since the
  tracer reads a queue's length as two numbers.
- *Spinning for a while.* Go's spinning Ms sweep four times and may sleep in between. A compiled
  spin holds the GIL, so it keeps from running just those who could make work. Go's limit on the
  number of spinning Ms goes with it: one that gave up without a sweep, because another spins,
  could find the same queue full again and again, and never let go.
- *Waking an M at each handoff* when no other M spins or is idle (Go's handoffp). Go cannot see all
  queues at once. Here that is cheap, so an M is woken only if there is work for it.

Rejected
--------
- *Readying a parked G under the lock of what it waits for* (Go's park with unlock function): the
  lock would be held over the switch, through frames of user code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, cast

from reference_runtime import runq
from reference_runtime.current import set_current
from reference_runtime.gmp import (
    G_DEAD,
    G_RUNNABLE,
    G_RUNNING,
    G_SYSCALL,
    G_WAITING,
    NO_G,
    NO_P,
    PARK,
    PREEMPT_OFF,
    STOP,
    YIELD,
    M,
)
from reference_runtime.monitor import monitor_main
from reference_runtime.netpoll import netpoll, run_timers, wait_as_poller
from reference_runtime.preempt import preemptall, withdraw
from reference_runtime.processors import (
    acquirep,
    first_run,
    new_m,
    queues_hold_work,
    releasep,
    start_m,
    start_thread,
    stop_run,
    stopm,
    take_idle_p,
    wakep,
)
from reference_runtime.ready import new_g, put_global
from reference_runtime.stopped import preempted, release_stopped, run_special
from reference_runtime.stops import begin_preemption, end_preemption, m_begins, m_ends, tell_stop
from reference_runtime.transitions import (
    BY_PANIC,
    EXIT_SLOW,
    NO_REASON,
    NO_TID,
    PIDLE,
    mstart,
    transition,
)
from reference_runtime.world import gcstopm

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import G, Goroutine, P, Sched

GLOBAL_TURN: Final = 61
"""Every so many turns a P looks at the global queue first (Go: schedtick % 61)."""
MONITOR_ID: Final = -2
"""The monitor's M is in no list and never has a P."""
BREATH: Final = 256
"""Every so many turns an M lets the process's other threads at what they share."""
RELEASE_NS: Final = 10_000_000
"""It looks again so often whether a signal has stopped one."""
EXIT_WAIT_NS: Final = 1_000_000_000
"""How long the end of a run waits for an M that is in the middle of a goroutine."""


def start(sched: Sched, main: Goroutine, name: str) -> None:
    """Make the first goroutine and the first M. Its end is told by the note ``finished``."""
    sched.m_main = partial(m_main, sched)
    begin_preemption(sched)
    for p in sched.allp[1:]:
        runq.pidleput(sched, p)
    sched.main = new_g(sched, main, name)
    first = sched.allp[0]
    runq.runqput(sched, first, sched.main)
    start_m(sched, new_m(sched), first)
    if sched.policy.has_monitor:
        monitor = M(MONITOR_ID, sched, sched.monitor_note, sched.host.new_note())
        if start_thread(sched, partial(monitor_main, sched, monitor), "monitor"):
            sched.monitor = monitor


def join(sched: Sched) -> None:
    """Wait for the Ms to leave, then close what is left of the goroutines.

    An M whose goroutine is in a system call is left to itself: it may never return. When it
    does, it sees that the run is over.
    """
    sched.preempt = PREEMPT_OFF
    sched.host.end_loops(True)
    tell_stop(sched)
    for m in sched.allm:
        left_ns: i64 = EXIT_WAIT_NS
        while left_ns > 0 and m.curg.status != G_SYSCALL:
            # A request that was under way may still stop one.
            release_stopped(sched)
            if m.exited.sleep_for(RELEASE_NS):
                break
            if left_ns == EXIT_WAIT_NS:
                # Python code without an end would compute beside whatever comes after the run.
                # Its M may have no goroutine: one that a line stopped, and that goes on now.
                sched.host.end_code(m.tid)
            left_ns -= RELEASE_NS
    if sched.monitor is not None:
        sched.monitor.exited.sleep()
    end_preemption(sched)
    g = sched.allg
    while g is not None:
        if g.status != G_SYSCALL and g.status != G_RUNNING:
            close_quietly(g)
        g = g.all_next


def goexit(sched: Sched, g: G) -> None:
    """End G, which has returned. Its objects are dropped here, where no lock is held.

    A queue may keep the G itself a little longer, and drops it in a critical section.
    """
    g.coro = None
    g.steps = NO_G.steps
    # It points back at G.
    g.waiter = None
    sched.lock.acquire()
    g.status = G_DEAD
    if g.all_prev is None:
        sched.allg = g.all_next
    else:
        g.all_prev.all_next = g.all_next
    if g.all_next is not None:
        g.all_next.all_prev = g.all_prev
    g.all_next = None
    g.all_prev = None
    sched.ngoroutines -= 1
    sched.lock.release()
    if g is sched.main:
        stop_run(sched, None)


def m_main(sched: Sched, m: M) -> None:
    """The body of an M's thread."""
    set_current(m)
    m.tid = sched.host.thread_id()
    mstart(m, m.tid)
    try:
        m_begins(sched, m)
        sched.policy.m_started(m)
        if m.nextp is not NO_P:
            acquirep(sched, m, m.nextp)
        while True:
            g = findrunnable(sched, m)
            if g is None:
                break
            execute(sched, m, g)
    except BaseException as failure:
        # A fault of the scheduler or of a policy: no goroutine's exception gets here.
        stop_run(sched, failure)
    sched.policy.m_stopped(m)
    m_ends(sched, m)
    sched.host.thread_ends()
    set_current(None)
    m.exited.wakeup()


def execute(sched: Sched, m: M, g: G) -> None:
    """Run G on M until it yields, and do what it wants then."""
    p = m.p
    inherits = p.inherits
    p.inherits = False
    if sched.parallel:
        # As `suspend` does, who may be another P's: he sees that G runs, or is seen.
        p.lock.acquire()
        g.status = G_RUNNING
        p.lock.release()
    else:
        g.status = G_RUNNING
    # After that, since whoever suspends G says so before he looks at its status.
    if g.special and run_special(sched, m, g):
        return
    m.curg = g
    m.wants = YIELD
    if not inherits:
        p.schedtick += 1
    if p.changed_hands:
        first_run(sched, m, p, g)
    try:
        for _ in g.steps:
            break
        else:
            m.curg = NO_G
            if m.asked:
                withdraw(sched, m, g)
            goexit(sched, g)
            return
    except BaseException as failure:
        m.curg = NO_G
        if m.asked:
            withdraw(sched, m, g)
        failure.add_note(f"goroutine {g.goid} [{g.name}]")
        # Before goexit, which ends the run without a failure if this is the main goroutine.
        stop_run(sched, failure)
        preemptall(sched, m, BY_PANIC)
        goexit(sched, g)
        return
    if m.asked:
        withdraw(sched, m, g)
    after_switch(sched, m, g)


def after_switch(sched: Sched, m: M, g: G) -> None:
    """G has left M, for the reason in ``m.wants``."""
    m.curg = NO_G
    if m.wants == YIELD:
        # To the global queue, as Go does: in a local one, two goroutines that yield to each
        # other would keep those that come out of a system call waiting for 61 turns.
        g.status = G_RUNNABLE
        put_global(sched, g)
    elif m.wants == PARK:
        sched.lock.acquire()
        if not g.token:
            g.status = G_WAITING
            sched.lock.release()
            return
        g.token = False
        g.status = G_RUNNABLE
        sched.lock.release()
        runq.runqput(sched, m.p, g)
    elif m.wants == STOP:
        preempted(sched, g)
    else:
        exitsyscall0(sched, m, g)


def findrunnable(sched: Sched, m: M) -> G | None:
    """The next G for M, which is RUNNABLE and on no queue; None when the run is over.

    Parks M for as long as there is none. M may come back with another P.
    """
    while not sched.stopping:
        if m.p is NO_P and not sched.policy.before_park(sched, m):
            if not stopm(sched, m):
                return None
            if m.p is NO_P:
                continue
        if sched.gcwaiting:
            gcstopm(sched, m)
            continue
        p = m.p
        if sched.timers.count:
            run_timers(sched, m)
        if p.schedtick % BREATH == 0:
            sched.host.let_others_run()
        g: G | None = None
        if p.schedtick % GLOBAL_TURN == 0 and sched.runqsize:
            g = take_global(sched, p, 1)
        if g is None:
            g = runq.runqget(p)
        if g is None:
            g = find_elsewhere(sched, m, p)
        if g is not None:
            if m.spinning:
                stop_spinning(sched, m)
            return g
    return None


def find_elsewhere(sched: Sched, m: M, p: P) -> G | None:
    """Nothing in the local queue: global queue, network, the other Ps; else M loses P."""
    if sched.runqsize:
        g = take_global(sched, p, 0)
        if g is not None:
            return g
    if sched.netpoll_waiters and sched.poller is None and not sched.rules.skips_netpoll:
        netpoll(sched, m, 0)
        g = runq.runqget(p)
        if g is not None:
            return g
    if m.spinning or may_spin(sched):
        if not m.spinning:
            become_spinning(sched, m)
        g = runq.steal(sched, p)
        if g is not None:
            return g
    if not give_up_p(sched, m, p):
        return None
    # From here M has no P. It said so before it looks again, so whoever made work in
    # between has either seen an idle P and no spinning M, or is seen now.
    if queues_hold_work(sched) and take_idle_p(sched, m):
        if sched.rules.spinning_limit:
            # Under the limit it might never get to that work, and look again without an end.
            become_spinning(sched, m)
        return None
    if (sched.timers.count or sched.netpoll_waiters) and sched.poller is None:
        wait_as_poller(sched, m)
    return None


def may_spin(sched: Sched) -> bool:
    """Whether one more M may look through the other Ps' queues (rule ``spinning_limit``)."""
    if not sched.rules.spinning_limit:
        return True
    return 2 * sched.nmspinning < len(sched.allp) - sched.npidle


def become_spinning(sched: Sched, m: M) -> None:
    """M, which has a P, begins to look for work at the others'."""
    sched.lock.acquire()
    m.spinning = True
    sched.nmspinning += 1
    sched.lock.release()


def give_up_p(sched: Sched, m: M, p: P) -> bool:
    """Put P on the idle list, unless there is global work; whether it went there."""
    sched.lock.acquire()
    if sched.runqsize or sched.stopping or sched.gcwaiting:
        sched.lock.release()
        return False
    releasep(m, p)
    p.lost_enter_ns = 0
    runq.pidleput(sched, p)
    if m.spinning:
        m.spinning = False
        sched.nmspinning -= 1
    sched.lock.release()
    transition(PIDLE, m, p, NO_G, NO_REASON, NO_TID)
    return True


def take_global(sched: Sched, p: P, most: i64) -> G | None:
    """Take P's share of the global queue; ``most`` 0 for as many as is fair."""
    sched.lock.acquire()
    g = runq.globrunqget(sched, p, len(sched.allp), most)
    sched.lock.release()
    return g


def stop_spinning(sched: Sched, m: M) -> None:
    """M found work. If it was the last to look, another takes its place."""
    sched.lock.acquire()
    m.spinning = False
    sched.nmspinning -= 1
    sched.lock.release()
    wakep(sched, m)


def exitsyscall0(sched: Sched, m: M, g: G) -> None:
    """G came out of a system call without a P and has left M: queue it, or find M a P."""
    sched.record.add(exit_slow=1)
    g.status = G_RUNNABLE
    transition(EXIT_SLOW, m, NO_P, g, NO_REASON, NO_TID)
    if sched.stopping:
        return
    sched.lock.acquire()
    p = runq.pidleget(sched)
    if p is NO_P:
        runq.globrunqput(sched, g)
        sched.lock.release()
        return
    sched.lock.release()
    acquirep(sched, m, p)
    runq.runqput(sched, p, g)


def close_quietly(g: G) -> None:
    """Let a goroutine that will not run again give back what it holds."""
    try:
        close = cast("Goroutine", g.coro).close
        close()
    except Exception:
        # Its program is over: neither an await in a finally clause nor an error is of use.
        return
