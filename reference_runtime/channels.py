"""Channels, as Go's: unbuffered or buffered, closed by the sender, chosen among by ``select``.

A goroutine that waits has a :class:`Waiter` in the channel's queue. The sender, receiver or
closer that serves it fills the waiter in and readies its goroutine. A ``select`` puts one waiter
into each queue; the first of them that is served marks all of them as taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reference_runtime.gmp import PARK, G
from reference_runtime.goroutines import getm
from reference_runtime.ready import ready
from reference_runtime.switch import SWITCH

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import Sched

__all__ = ["Channel", "ChannelClosed", "recv_case", "select", "send_case"]


class ChannelClosed(Exception):  # noqa: N818  it is an end more often than an error
    """Received from a channel that is closed and empty, or sent to one that is closed."""


class Wait:
    """One wait of one goroutine, on one channel or on several."""

    def __init__(self, g: G) -> None:
        self.g = g
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

    async def send(self, value: object) -> None:
        """Send, waiting for room or a receiver.

        Raises:
            ChannelClosed: the channel is, or was closed while waiting.
        """
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
            await self.send(value)
            return
        self.sendq.append(waiter)
        sched.wait_lock.release()
        g.wait_reason = "chan send"
        m.wants = PARK
        await SWITCH
        if not wait.ok:
            raise ChannelClosed("send on a closed channel")

    async def recv(self) -> object:
        """Receive, waiting for a value.

        Raises:
            ChannelClosed: the channel is closed and empty.
        """
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
            return await self.recv()
        self.recvq.append(waiter)
        sched.wait_lock.release()
        g.wait_reason = "chan receive"
        m.wants = PARK
        await SWITCH
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
    sched = m.sched
    waiting = Wait(m.curg)
    waiters = [Waiter(waiting, i, case.value) for i, case in enumerate(cases)]
    sched.wait_lock.acquire()
    count: i64 = len(cases)
    begin: i64 = sched.host.random(count) if count > 1 else 0
    for i in range(count):
        index = (begin + i) % count
        case = cases[index]
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
        case = cases[i]
        queue = case.channel.sendq if case.sends else case.channel.recvq
        queue.append(waiters[i])
    sched.wait_lock.release()
    m.curg.wait_reason = "select"
    m.wants = PARK
    await SWITCH
    sched.wait_lock.acquire()
    for case in cases:
        forget(case, waiting)
    sched.wait_lock.release()
    if cases[waiting.case].sends and not waiting.ok:
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


def forget(case: Case, wait: Wait) -> None:
    """Take a select's other waiters out of their queues. The wait lock is held."""
    queue = case.channel.sendq if case.sends else case.channel.recvq
    for _ in range(len(queue)):
        waiter = queue.popleft()
        if waiter.wait is not wait:
            queue.append(waiter)
