"""Channels, as Go's: unbuffered or buffered, closed by the sender, chosen among by ``select``.

A goroutine that waits has a :class:`Waiter` in the channel's queue. The sender, receiver or
closer that serves it fills the waiter in and readies its goroutine. A ``select`` puts one waiter
into each queue; the first of them that is served marks all of them as taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

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
        self.g: Final = g
        self.timed_out: bool = False
        self.taken: bool = False
        self.case: i64 = -1
        """Index of the waiter that was served."""
        self.value: object = None
        self.ok: bool = False


class Waiter:
    """A wait's place in the queue of one channel (Go: sudog)."""

    def __init__(self, wait: Wait, case: i64, value: object) -> None:
        self.wait: Final = wait
        self.case: i64 = case
        self.value = value
        self.queued: bool = False
        self.next: Waiter | None = None
        self.before: Waiter | None = None


class WaitQueue:
    """Those who wait on one side of a channel, linked through their waiters (Go: waitq).

    A list of Python's would cost a call by name for each, and to leave it from the middle would
    take a walk. All methods are called with the wait lock held.
    """

    def __init__(self) -> None:
        self.first: Waiter | None = None
        self.last: Waiter | None = None

    def put(self, waiter: Waiter) -> None:
        """Append a waiter that is in no queue."""
        last = self.last
        waiter.before = last
        if last is None:
            self.first = waiter
        else:
            last.next = waiter
        self.last = waiter
        waiter.queued = True

    def get(self) -> Waiter | None:
        """Take the one that has waited longest."""
        waiter = self.first
        if waiter is not None:
            self.leave(waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Take a waiter out of this queue, unless it was taken before."""
        if not waiter.queued:
            return
        waiter.queued = False
        before = waiter.before
        following = waiter.next
        if before is None:
            self.first = following
        else:
            before.next = following
        if following is None:
            self.last = before
        else:
            following.before = before
        waiter.next = None
        waiter.before = None


class Channel:
    """A channel of any values.

    Args:
        capacity: how many values it holds; 0 for none, sender and receiver meet.
    """

    def __init__(self, capacity: int = 0) -> None:
        if capacity < 0:
            raise ValueError("a channel's capacity is 0 or more")
        self.capacity: i64 = capacity
        self.buffer: Final[deque[object]] = deque()
        self.buffered: i64 = 0
        """Values in the buffer."""
        self.recvq: Final = WaitQueue()
        self.sendq: Final = WaitQueue()
        self.closed: bool = False

    def __len__(self) -> int:
        """Values in the buffer."""
        return int(self.buffered)

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
        waiter = own_waiter(g, value, timeout_ns)
        sched.wait_lock.acquire()
        if self.closed or can_send(self):
            sched.wait_lock.release()
            waiter.value = None
            await self.send(value, timeout_ns)
            return
        self.sendq.put(waiter)
        sched.wait_lock.release()
        wait = waiter.wait
        timer = None if timeout_ns < 0 else start_timeout(wait, timeout_ns)
        g.wait_reason = "chan send"
        m.wants = PARK
        await SWITCH
        if timer is not None:
            end_timeout(sched, timer)
        waiter.value = None
        if wait.timed_out:
            leave(sched, self.sendq, waiter)
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
        if can_recv(self) or self.closed:
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
        waiter = own_waiter(g, None, timeout_ns)
        sched.wait_lock.acquire()
        if can_recv(self) or self.closed:
            sched.wait_lock.release()
            return await self.recv(timeout_ns)
        self.recvq.put(waiter)
        sched.wait_lock.release()
        wait = waiter.wait
        timer = None if timeout_ns < 0 else start_timeout(wait, timeout_ns)
        g.wait_reason = "chan receive"
        m.wants = PARK
        await SWITCH
        if timer is not None:
            end_timeout(sched, timer)
        if wait.timed_out:
            leave(sched, self.recvq, waiter)
            raise TimeoutError("chan receive: nothing came in time")
        if not wait.ok:
            raise ChannelClosed("receive from a closed channel")
        # The waiter is kept, and is to hold nothing of the program's.
        value = wait.value
        wait.value = None
        return value

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


def own_waiter(g: G, value: object, timeout_ns: i64) -> Waiter:
    """A waiter for G, which waits on one channel: without a timeout the one it had before.

    A goroutine waits in one place at a time, and whoever served it holds nothing of it when it
    runs again. A timer does, so a wait with a timeout has a waiter of its own.
    """
    waiter = g.waiter
    if waiter is None or timeout_ns >= 0:
        waiter = Waiter(Wait(g), 0, value)
        if timeout_ns < 0:
            g.waiter = waiter
        return waiter
    wait = waiter.wait
    wait.taken = False
    wait.ok = False
    waiter.value = value
    return waiter


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


def leave(sched: Sched, queue: WaitQueue, waiter: Waiter) -> None:
    """Take a waiter that timed out from the queue in which it may still stand."""
    sched.wait_lock.acquire()
    queue.leave(waiter)
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


def turn_away(queue: WaitQueue, told: list[G]) -> None:
    """Tell all waiters of a queue that the channel is closed. The wait lock is held."""
    while True:
        waiter = queue.get()
        if waiter is None:
            return
        if serve(waiter, None, False):
            told.append(waiter.wait.g)


def can_send(channel: Channel) -> bool:
    """Whether a send might not have to wait. The wait lock is held."""
    return channel.buffered < channel.capacity or channel.recvq.first is not None


def can_recv(channel: Channel) -> bool:
    """Whether a receive might not have to wait. The wait lock is held."""
    return channel.buffered > 0 or channel.sendq.first is not None


def try_send(channel: Channel, value: object) -> tuple[bool, G | None]:
    """Send without waiting: whether it was, and a receiver to ready. The wait lock is held."""
    if channel.closed:
        return False, None
    while True:
        waiter = channel.recvq.get()
        if waiter is None:
            break
        if serve(waiter, value, True):
            return True, waiter.wait.g
    if channel.buffered < channel.capacity:
        channel.buffer.append(value)
        channel.buffered += 1
        return True, None
    return False, None


def try_recv(channel: Channel) -> tuple[bool, object, G | None]:
    """Receive without waiting: whether, the value, a sender to ready. The wait lock is held."""
    received = False
    value: object = None
    if channel.buffered:
        received = True
        value = channel.buffer.popleft()
        channel.buffered -= 1
    while True:
        waiter = channel.sendq.get()
        if waiter is None:
            break
        if not serve(waiter, None, True):
            continue
        if received:
            channel.buffer.append(waiter.value)
            channel.buffered += 1
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
        elif can_recv(channel):
            done, value, partner = try_recv(channel)
        if done or channel.closed:
            return finish(sched, index, case, value, done, partner)
    if not wait:
        sched.wait_lock.release()
        return -1, None, False
    for i in range(count):
        case = chosen[i]
        queue = case.channel.sendq if case.sends else case.channel.recvq
        queue.put(waiters[i])
    sched.wait_lock.release()
    m.curg.wait_reason = "select"
    m.wants = PARK
    await SWITCH
    sched.wait_lock.acquire()
    for i in range(count):
        case = chosen[i]
        queue = case.channel.sendq if case.sends else case.channel.recvq
        queue.leave(waiters[i])
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
