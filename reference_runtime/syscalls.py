"""How a goroutine enters a system call and returns (Go: entersyscall … exitsyscall0).

The call itself runs on the goroutine's own thread, with the GIL released. A goroutine whose M
still has its P afterwards goes on without the scheduler; only one that lost it yields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from reference_runtime.current import CURRENT
from reference_runtime.gmp import (
    G_RUNNING,
    G_SYSCALL,
    NO_P,
    NO_P_LEFT,
    P_RUNNING,
    P_SYSCALL,
    STACK_PREEMPT,
    STOP,
    M,
    Sched,
)
from reference_runtime.policies.base import BLOCK, NORMAL, RAW, Site
from reference_runtime.processors import (
    acquirep,
    first_run,
    handoffp,
    in_syscall,
    releasep,
    take_from_syscall,
    take_idle_p,
)
from reference_runtime.stopped import stopped_by_check
from reference_runtime.switch import SWITCH
from reference_runtime.transitions import BY_EXITSYSCALL, BY_SYSCALL_BLOCK
from reference_runtime.world import entersyscall_asked

if TYPE_CHECKING:
    from mypy_extensions import i64

NEEDLESS_NS: Final = 20_000
"""A call that returns sooner than this was not worth taking its P: to wake another thread and
to get a P back costs about as much. It is also the shortest time after which Go retakes."""


def entersyscall(sched: Sched, m: M) -> None:
    """M's goroutine enters a call that may block; its P may be retaken from here on."""
    p = m.p
    m.oldp = p
    if sched.rules.psyscall:
        m.curg.status = G_SYSCALL
        m.enter_ns = sched.host.nanotime()
        p.lock.acquire()
        p.status = P_SYSCALL
        p.lock.release()
    else:
        # The goroutine's status alone says that P may be taken, so it comes last.
        m.enter_ns = sched.host.nanotime()
        p.lock.acquire()
        m.curg.status = G_SYSCALL
        p.lock.release()
    if m.asked:
        entersyscall_asked(sched, m)


def entersyscallblock(sched: Sched, m: M) -> None:
    """M's goroutine enters a call that will block; its P is handed off before."""
    p = m.p
    g = m.curg
    if sched.rules.psyscall:
        # Without a status of P's own this would say that P may be taken: it comes last there.
        g.status = G_SYSCALL
    m.enter_ns = sched.host.nanotime()
    p.syscalltick += 1
    releasep(m, p)
    m.oldp = NO_P
    g.status = G_SYSCALL
    if m.asked:
        entersyscall_asked(sched, m)
    p.lost_enter_ns = m.enter_ns
    p.was_retaken = False
    sched.record.add(handoffs=1)
    handoffp(sched, m, p, g, BY_SYSCALL_BLOCK)


def exitsyscall(sched: Sched, m: M) -> bool:
    """The call has returned: whether M has a P, and its goroutine goes on.

    If not, the goroutine yields with ``NO_P_LEFT``, and ``Sched.exitsyscall0`` sees to it.
    """
    p = m.p
    p.lock.acquire()
    if m.p is p and in_syscall(sched, p):
        p.status = P_RUNNING
        m.curg.status = G_RUNNING
        p.syscalltick += 1
        p.lock.release()
        return not sched.stopping
    p.lock.release()
    if sched.host.nanotime() - m.enter_ns < NEEDLESS_NS:
        sched.record.add(needless=1)
    if sched.stopping:
        return False
    if not take_back(sched, m) and not take_idle_p(sched, m):
        return False
    first_run(sched, m, m.p, m.curg)
    # Only now: from here to where one that is held still (``suspend``) stops, nothing waits.
    if sched.parallel:
        m.p.lock.acquire()
        m.curg.status = G_RUNNING
        m.p.lock.release()
    else:
        m.curg.status = G_RUNNING
    return True


def take_back(sched: Sched, m: M) -> bool:
    """Take the P with which the call began, if another M is in a call with it (``takes_back``)."""
    p = m.oldp
    if not sched.rules.takes_back or p is NO_P:
        return False
    if not take_from_syscall(sched, m, p, BY_EXITSYSCALL):
        return False
    acquirep(sched, m, p)
    return True


def was_rescued(m: M) -> bool:
    """A raw call has returned: whether the monitor made it a normal one meanwhile."""
    p = m.p
    p.lock.acquire()
    m.raw_since_ns = 0
    rescued = m.curg.status == G_SYSCALL
    p.lock.release()
    return rescued


async def stop_if_asked(sched: Sched, m: M) -> None:
    """The check at a function's entry, on M's goroutine (Go: morestack)."""
    if m.curg.stackguard == STACK_PREEMPT:
        stopped_by_check(sched, m)
        m.wants = STOP
        await SWITCH


async def syscall(site: Site, call: Callable[..., object], args: tuple[object, ...]) -> object:
    """Make a system call from a goroutine, the way that the policy chooses for ``site``.

    Args:
        site: the place in the program.
        call: a method of the host, or any function that may block and releases the GIL.
        args: its arguments.

    Returns:
        What ``call`` returns; what it raises is raised, on whatever thread the goroutine is then.
    """
    m = cast("M", CURRENT())
    sched = m.sched
    policy = sched.policy
    mode: i64 = policy.mode(site)
    if mode == RAW:
        if site.hint == RAW or not policy.wants_call_done:
            if m.curg.stackguard == STACK_PREEMPT:
                # Nothing else of a raw call looks: this is the entry of a function, though.
                await stop_if_asked(sched, m)
            return call(*args)
        m.enter_ns = sched.host.nanotime()
        m.raw_since_ns = m.enter_ns
    elif mode == BLOCK:
        entersyscallblock(sched, m)
    else:
        entersyscall(sched, m)
    result: object = None
    error: BaseException | None = None
    try:
        result = call(*args)
    except BaseException as raised:
        error = raised
    if policy.wants_call_done:
        if mode == RAW and was_rescued(m):
            mode = NORMAL
        policy.call_done(site, mode, m.enter_ns, sched.host.nanotime())
    if mode != RAW and not exitsyscall(sched, m):
        m.wants = NO_P_LEFT
        await SWITCH
    elif m.curg.stackguard == STACK_PREEMPT:
        await stop_if_asked(sched, m)
    if error is not None:
        raise error
    return result


__all__ = ["NO_P", "entersyscall", "entersyscallblock", "exitsyscall", "syscall"]
