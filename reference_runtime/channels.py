"""Channels, as Go's: unbuffered or buffered, closed by the sender, chosen among by ``select``.

A goroutine that waits has a :class:`Waiter` in the channel's queue. The sender, receiver or
closer that serves it fills the waiter in and readies its goroutine. A ``select`` puts one waiter
into each queue; the first of them that is served marks all of them as taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from reference_runtime.gmp import PARK, STACK_PREEMPT, G, M
from reference_runtime.goroutines import getm
from reference_runtime.netpoll import new_timer
from reference_runtime.ready import ready
from reference_runtime.switch import SWITCH
from reference_runtime.syscalls import stop_if_asked
from reference_runtime.timers import Timer

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import Sched

__all__ = ["Channel", "ChannelClosed", "after", "recv_case", "select", "send_case"]


class ChannelClosed(Exception):  # noqa: N818  it is an end more often than an error
    """Received from a channel that is closed and empty, or sent to one that is closed."""


class Wait:
    """One wait of one goroutine, on one channel or on several, on a mutex or a wait group.

    Whoever takes it, with the wait lock held, readies the goroutine: nobody else may.
    """

    def __init__(self, g: G) -> None:
        self.g = g
        self.timed_out: bool = False
        self.taken: bool = False
        self.case: i64 = -1
        """Index of the waiter that was served."""
        self.value: object = None
        self.ok: bool = False


class Waiter:
    """A wait's place in the queue of one channel (Go: sudog)."""

    def __init__(self, wait: Wait, case: i64, value: object) -> None:
        self.wait = wait
        self.case: i64 = case
        self.value = value


class Channel:
    """A channel of any values.

    Args:
        capacity: how many values it holds; 0 for none, sender and receiver meet.
    """

    def __init__(self, capacity: int = 0) -> None:
        if capacity < 0:
            raise ValueError("a channel's capacity is 0 or more")
        self.capacity = capacity
        self.buffer: deque[object] = deque()
        self.recvq: deque[Waiter] = deque()
        self.sendq: deque[Waiter] = deque()
        self.closed: bool = False

    def __len__(self) -> int:
        """Values in the buffer."""
        return len(self.buffer)

    async def send(self, value: object, timeout_ns: int = -1) -> None:
        """Send, waiting for room or a receiver, for ``timeout_ns`` at most (-1 for ever).

        Raises:
            ChannelClosed: the channel is, or was closed while waiting.
            TimeoutError: nobody took the value in time; nobody will.
        """
        m = getm()
        if m.curg.stackguard == STACK_PREEMPT:
            await stop_if_asked(m.sched, m)
            m = getm()
        sched = m.sched
        sched.wait_lock.acquire()
        sent, receiver = try_send(self, value)
        if sent:
            sched.wait_lock.release()
            if receiver is not None:
                ready(sched, m, receiver)
            return
        if self.closed:
            sched.wait_lock.release()
            raise ChannelClosed("send on a closed channel")
        sched.wait_lock.release()
        # Made while the lock is free (see scheduler.py), so what was found out may be old.
        g = m.curg
        wait = Wait(g)
        waiter = Waiter(wait, 0, value)
        sched.wait_lock.acquire()
        if self.closed or can_send(self):
            sched.wait_lock.release()
            await self.send(value, timeout_ns)
            return
        self.sendq.append(waiter)
        sched.wait_lock.release()
        timer = None if timeout_ns < 0 else start_timeout(wait, timeout_ns)
        g.wait_reason = "chan send"
        m.wants = PARK
        await SWITCH
        if timer is not None:
            end_timeout(sched, timer)
        if wait.timed_out:
            leave(sched, self.sendq, wait)
            raise TimeoutError("chan send: nobody received in time")
        if not wait.ok:
            raise ChannelClosed("send on a closed channel")

    async def recv(self, timeout_ns: int = -1) -> object:
        """Receive, waiting for a value, for ``timeout_ns`` at most (-1 for ever).

        Raises:
            ChannelClosed: the channel is closed and empty.
            TimeoutError: nothing came in time.
        """
        m = getm()
        if m.curg.stackguard == STACK_PREEMPT:
            await stop_if_asked(m.sched, m)
            m = getm()
        sched = m.sched
        sched.wait_lock.acquire()
        if self.buffer or self.sendq or self.closed:
            received, value, sender = try_recv(self)
            if received or self.closed:
                sched.wait_lock.release()
                if sender is not None:
                    ready(sched, m, sender)
                if not received:
                    raise ChannelClosed("receive from a closed channel")
                return value
        sched.wait_lock.release()
        g = m.curg
        wait = Wait(g)
        waiter = Waiter(wait, 0, None)
        sched.wait_lock.acquire()
        if self.buffer or self.sendq or self.closed:
            sched.wait_lock.release()
            return await self.recv(timeout_ns)
        self.recvq.append(waiter)
        sched.wait_lock.release()
        timer = None if timeout_ns < 0 else start_timeout(wait, timeout_ns)
        g.wait_reason = "chan receive"
        m.wants = PARK
        await SWITCH
        if timer is not None:
            end_timeout(sched, timer)
        if wait.timed_out:
            leave(sched, self.recvq, wait)
            raise TimeoutError("chan receive: nothing came in time")
        if not wait.ok:
            raise ChannelClosed("receive from a closed channel")
        return wait.value

    def close(self) -> None:
        """Close the channel: no more values will be sent. All goroutines that wait are told.

        Raises:
            ChannelClosed: it is closed already.
        """
        m = getm()
        sched = m.sched
        told: list[G] = []
        sched.wait_lock.acquire()
        if self.closed:
            sched.wait_lock.release()
            raise ChannelClosed("close of a closed channel")
        self.closed = True
        turn_away(self.recvq, told)
        turn_away(self.sendq, told)
        sched.wait_lock.release()
        if sched.rules.close_last_first:
            told.reverse()
        for g in told:
            ready(sched, m, g)

    def __aiter__(self) -> Channel:
        """The values, until the channel is closed."""
        return self

    async def __anext__(self) -> object:
        """The next value."""
        try:
            return await self.recv()
        except ChannelClosed:
            raise StopAsyncIteration from None


def start_timeout(wait: Wait, timeout_ns: i64) -> Timer:
    """End a wait after so long, unless it is taken before."""
    sched = getm().sched
    timer = Timer(sched.host.nanotime() + timeout_ns, None, partial(time_out, wait))
    new_timer(sched, timer)
    return timer


def time_out(wait: Wait, m: M) -> None:
    """A wait's time is over: ready its goroutine, unless somebody took it."""
    sched = m.sched
    sched.wait_lock.acquire()
    late = wait.taken
    if not late:
        wait.taken = True
        wait.timed_out = True
    sched.wait_lock.release()
    if not late:
        ready(sched, m, wait.g)


def end_timeout(sched: Sched, timer: Timer) -> None:
    """The wait is over, in one way or the other."""
    sched.timers.cancel(timer)


def leave(sched: Sched, queue: deque[Waiter], wait: Wait) -> None:
    """Take a wait that timed out from the queue in which it may still stand."""
    sched.wait_lock.acquire()
    forget(queue, wait)
    sched.wait_lock.release()


def after(ns: int) -> Channel:
    """A channel that gets the host's time, ns, once, in ``ns`` (Go: time.After)."""
    channel = Channel(1)
    sched = getm().sched
    new_timer(sched, Timer(sched.host.nanotime() + ns, None, partial(tick, channel)))
    return channel


def tick(channel: Channel, m: M) -> None:
    """The time of an ``after`` has come; its channel has room."""
    sched = m.sched
    now_ns: object = sched.host.nanotime()
    sched.wait_lock.acquire()
    _, receiver = try_send(channel, now_ns)
    sched.wait_lock.release()
    if receiver is not None:
        ready(sched, m, receiver)


def serve(waiter: Waiter, value: object, ok: bool) -> bool:
    """Fill a waiter in; False if its select was served elsewhere. The wait lock is held."""
    wait = waiter.wait
    if wait.taken:
        return False
    wait.taken = True
    wait.case = waiter.case
    wait.value = value
    wait.ok = ok
    return True


def turn_away(queue: deque[Waiter], told: list[G]) -> None:
    """Tell all waiters of a queue that the channel is closed. The wait lock is held."""
    while queue:
        waiter = queue.popleft()
        if serve(waiter, None, False):
            told.append(waiter.wait.g)


def can_send(channel: Channel) -> bool:
    """Whether a send might not have to wait. The wait lock is held."""
    return len(channel.buffer) < channel.capacity or len(channel.recvq) > 0


def try_send(channel: Channel, value: object) -> tuple[bool, G | None]:
    """Send without waiting: whether it was, and a receiver to ready. The wait lock is held."""
    if channel.closed:
        return False, None
    while channel.recvq:
        waiter = channel.recvq.popleft()
        if serve(waiter, value, True):
            return True, waiter.wait.g
    if len(channel.buffer) < channel.capacity:
        channel.buffer.append(value)
        return True, None
    return False, None


def try_recv(channel: Channel) -> tuple[bool, object, G | None]:
    """Receive without waiting: whether, the value, a sender to ready. The wait lock is held."""
    received = False
    value: object = None
    if channel.buffer:
        received = True
        value = channel.buffer.popleft()
    while channel.sendq:
        waiter = channel.sendq.popleft()
        if not serve(waiter, None, True):
            continue
        if received:
            channel.buffer.append(waiter.value)
            return True, value, waiter.wait.g
        return True, waiter.value, waiter.wait.g
    return received, value, None


class Case:
    """One alternative of a select; made by :func:`recv_case` and :func:`send_case`."""

    def __init__(self, channel: Channel, sends: bool, value: object) -> None:
        self.channel = channel
        self.sends = sends
        self.value = value


def recv_case(channel: Channel) -> Case:
    """The case "receive from ``channel``" of a select."""
    return Case(channel, False, None)


def send_case(channel: Channel, value: object) -> Case:
    """The case "send ``value`` to ``channel``" of a select."""
    return Case(channel, True, value)


async def select(cases: Sequence[Case], wait: bool = True) -> tuple[int, object, bool]:
    """Do one of several sends and receives, waiting until one can be done (Go: select).

    Args:
        cases: the alternatives; among those that can be done at once a random one is taken.
        wait: False as with a ``default`` in Go: do not wait.

    Returns:
        Index of the case (-1 if none could be done), the value received, and whether it was one
        (False when the channel is closed).

    Raises:
        ChannelClosed: the case taken sends to a closed channel.
    """
    m = getm()
    if m.curg.stackguard == STACK_PREEMPT:
        await stop_if_asked(m.sched, m)
        m = getm()
    sched = m.sched
    waiting = Wait(m.curg)
    # What makes objects comes before the lock: the list, which needs no iterator, and the chance.
    chosen = list(cases)
    waiters = [Waiter(waiting, i, case.value) for i, case in enumerate(chosen)]
    count: i64 = len(chosen)
    begin: i64 = sched.host.random(count) if count > 1 else 0
    sched.wait_lock.acquire()
    for i in range(count):
        index = (begin + i) % count
        case = chosen[index]
        channel = case.channel
        done = False
        value: object = None
        partner: G | None = None
        if case.sends:
            done, partner = try_send(channel, case.value)
        elif channel.buffer or channel.sendq:
            done, value, partner = try_recv(channel)
        if done or channel.closed:
            return finish(sched, index, case, value, done, partner)
    if not wait:
        sched.wait_lock.release()
        return -1, None, False
    for i in range(count):
        case = chosen[i]
        queue = case.channel.sendq if case.sends else case.channel.recvq
        queue.append(waiters[i])
    sched.wait_lock.release()
    m.curg.wait_reason = "select"
    m.wants = PARK
    await SWITCH
    sched.wait_lock.acquire()
    for case in chosen:
        forget(case.channel.sendq if case.sends else case.channel.recvq, waiting)
    sched.wait_lock.release()
    if chosen[waiting.case].sends and not waiting.ok:
        raise ChannelClosed("send on a closed channel")
    return waiting.case, waiting.value, waiting.ok


def finish(
    sched: Sched, index: i64, case: Case, value: object, done: bool, partner: G | None
) -> tuple[int, object, bool]:
    """A select's case was done at once: let go of the lock and ready the other side."""
    sched.wait_lock.release()
    if partner is not None:
        ready(sched, getm(), partner)
    if case.sends and not done:
        raise ChannelClosed("send on a closed channel")
    return index, value, done


def forget(queue: deque[Waiter], wait: Wait) -> None:
    """Take a wait's waiters out of a queue. The wait lock is held."""
    for _ in range(len(queue)):
        waiter = queue.popleft()
        if waiter.wait is not wait:
            queue.append(waiter)
