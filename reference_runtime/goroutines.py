"""The functions that a goroutine calls: ``go``, ``gosched``, ``sleep``, system calls.

Each must be called on a goroutine. It finds the scheduler by the thread that it runs on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from reference_runtime.current import CURRENT
from reference_runtime.errors import FileClosed
from reference_runtime.gmp import PARK, STACK_PREEMPT, YIELD, G, Goroutine, M
from reference_runtime.host import READABLE, WRITABLE, Host
from reference_runtime.netpoll import new_timer, wait_begins, wait_timed_out
from reference_runtime.policies.base import BLOCK, NORMAL, RAW, Site
from reference_runtime.polldesc import PollWaiter
from reference_runtime.ready import newproc
from reference_runtime.switch import SWITCH
from reference_runtime.syscalls import stop_if_asked, syscall
from reference_runtime.timers import Timer

if TYPE_CHECKING:
    from mypy_extensions import i64

__all__ = [
    "BLOCK",
    "NORMAL",
    "RAW",
    "READABLE",
    "WRITABLE",
    "Site",
    "checkpoint",
    "close",
    "compute",
    "current_host",
    "endless_loop",
    "getg",
    "getm",
    "go",
    "gopark",
    "gosched",
    "nanosleep",
    "poll",
    "pread",
    "read",
    "sleep",
    "spin",
    "syscall",
    "try_read",
    "wait_readable",
    "wait_writable",
    "write",
]

READ: Final = Site("read")
WRITE: Final = Site("write")
PREAD: Final = Site("pread")
POLL: Final = Site("poll", BLOCK)
NANOSLEEP: Final = Site("nanosleep", BLOCK)


def getm() -> M:
    """The calling thread's M.

    Raises:
        RuntimeError: the caller is no goroutine.
    """
    m = CURRENT()
    if m is None:
        raise RuntimeError("this is for goroutines only: run it with Runtime.run")
    return cast("M", m)


def getg() -> G:
    """The calling goroutine."""
    return getm().curg


def current_host() -> Host:
    """The machine that the calling goroutine runs on."""
    return getm().sched.host


def go(coro: Goroutine, name: str = "") -> None:
    """Start a goroutine."""
    m = getm()
    newproc(m.sched, m, coro, name or getattr(coro, "__name__", "goroutine"))


def gosched() -> Awaitable[None]:
    """``await gosched()`` lets the other goroutines run.

    A goroutine that yields without another wish is queued again, so this is a bare yield.
    """
    return SWITCH


async def checkpoint() -> None:
    """A cooperative preemption point, as at each function's entry in Go: stops if asked to."""
    m = getm()
    await stop_if_asked(m.sched, m)


async def gopark(reason: str) -> None:
    """Wait until this goroutine is readied, exactly once; ``reason`` is shown in reports."""
    m = getm()
    m.curg.wait_reason = reason
    m.wants = PARK
    await SWITCH


async def sleep(ns: i64) -> None:
    """Wait for ``ns`` without a thread."""
    m = getm()
    g = m.curg
    if ns > 0:
        sched = m.sched
        g.wait_reason = "sleep"
        new_timer(sched, Timer(sched.host.nanotime() + ns, g, None))
        m.wants = PARK
    else:
        m.wants = YIELD
    await SWITCH


async def wait_fd(fd: i64, event: i64, reason: str, timeout_ns: i64) -> None:
    """Wait, without a thread, until ``fd`` is ready (Go: runtime_pollWait)."""
    m = getm()
    g = m.curg
    sched = m.sched
    waiter = PollWaiter(g)
    g.wait_reason = reason
    wait_begins(sched, waiter, fd, event)
    timer: Timer | None = None
    if timeout_ns >= 0:
        timer = Timer(
            sched.host.nanotime() + timeout_ns, None, partial(wait_timed_out, waiter, int(fd))
        )
        new_timer(sched, timer)
    m.wants = PARK
    await SWITCH
    if timer is not None:
        sched.timers.cancel(timer)
    if waiter.evicted:
        raise FileClosed(int(fd))
    if waiter.timed_out:
        raise TimeoutError(f"{reason}: descriptor {fd} was not ready in time")


async def wait_readable(fd: int, timeout_ns: int = -1) -> None:
    """Wait for readiness only: no thread waits and no buffer is held.

    Args:
        fd: a descriptor that epoll takes: a socket, a pipe, an eventfd.
        timeout_ns: how long at most; -1 for ever.

    Raises:
        DoubleWait: another goroutine waits until it is readable; there is room for one.
        FileClosed: it was closed meanwhile, by :func:`close`.
        TimeoutError: it was not ready in time.
        OSError: it is no descriptor (EBADF), or one that is always ready (EPERM).
    """
    await wait_fd(fd, READABLE, "wait_readable", timeout_ns)


async def wait_writable(fd: int, timeout_ns: int = -1) -> None:
    """As :func:`wait_readable`, for room to write; one goroutine may wait for each."""
    await wait_fd(fd, WRITABLE, "wait_writable", timeout_ns)


def close(fd: int) -> None:
    """close(2). Goroutines that wait for the descriptor wake with ``FileClosed``, as in Go."""
    current_host().close_fd(fd)


def try_read(fd: int, count: int) -> bytes | None:
    """A raw read of a non-blocking descriptor; None where it would block."""
    try:
        return current_host().read(fd, count)
    except BlockingIOError:
        return None


async def read(fd: int, count: int, site: Site = READ) -> bytes:
    """read(2)."""
    return cast("bytes", await syscall(site, current_host().read, (fd, count)))


async def write(fd: int, data: bytes, site: Site = WRITE) -> int:
    """write(2)."""
    return cast("int", await syscall(site, current_host().write, (fd, data)))


async def pread(fd: int, count: int, offset: int, site: Site = PREAD) -> bytes:
    """pread(2)."""
    return cast("bytes", await syscall(site, current_host().pread, (fd, count, offset)))


async def poll(fd: int, events: int = READABLE, timeout_ns: int = -1, site: Site = POLL) -> int:
    """ppoll(2) on one descriptor, on this goroutine's thread."""
    return cast("int", await syscall(site, current_host().poll, (fd, events, timeout_ns)))


async def nanosleep(ns: int, site: Site = NANOSLEEP) -> None:
    """clock_nanosleep(2): a thread sleeps, unlike in :func:`sleep`."""
    await syscall(site, current_host().nanosleep, (ns,))


async def compute(kernel: Callable[[Any], object], argument: object) -> object:
    """Call a compute kernel of the host, in which a signal may stop this goroutine."""
    m = getm()
    if m.curg.stackguard == STACK_PREEMPT:
        await checkpoint()
        m = getm()
    result = kernel(argument)
    if m.sched.stopping:
        # A loop that ended because the run did: nothing of the program runs any more.
        m.wants = PARK
        await SWITCH
    return result


async def spin(ns: int) -> None:
    """Use a CPU for ``ns``, in parallel with other goroutines."""
    await compute(current_host().spin_ns, ns)


async def endless_loop(nosplit: bool = False) -> None:
    """Loop for ever without a call: cooperative preemption cannot stop this goroutine.

    It ends with the run, or at its time limit. Before that only a signal can stop it, and with
    ``nosplit`` not even a signal.
    """
    await compute(current_host().endless_loop, nosplit)
