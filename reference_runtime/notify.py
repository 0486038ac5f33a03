"""Readiness that is told to a channel: no goroutine waits, and no thread or buffer is held.

Example: many connections, and one goroutine that serves whichever has something to say.

    >>> ready = Channel(len(connections))
    >>> for fd in connections:
    ...     notify_readable(fd, ready)
    >>> while True:
    ...     fd = await ready.recv()
    ...     serve(fd)
    ...     notify_readable(fd, ready)
"""

from __future__ import annotations

from functools import partial
from typing import cast

from reference_runtime.channels import Channel, try_send
from reference_runtime.gmp import NO_G, M
from reference_runtime.goroutines import READABLE, WRITABLE, getm
from reference_runtime.netpoll import wait_begins
from reference_runtime.polldesc import PollWaiter
from reference_runtime.ready import ready

__all__ = ["notify_readable", "notify_writable"]


def notify_readable(fd: int, channel: Channel) -> None:
    """Have the channel get ``fd`` once, as soon as it is readable, or closed by ``close``.

    It takes the descriptor's place of one that waits until it is readable. The channel must have
    room or a receiver then: if it has neither, nobody is told.

    Raises:
        DoubleWait: somebody waits already until it is readable.
        OSError: it is no descriptor (EBADF), or one that is always ready (EPERM).
    """
    notify(fd, READABLE, channel)


def notify_writable(fd: int, channel: Channel) -> None:
    """As :func:`notify_readable`, of room to write."""
    notify(fd, WRITABLE, channel)


def notify(fd: int, event: int, channel: Channel) -> None:
    """Have the channel get ``fd`` once it is ready for the event."""
    wait_begins(getm().sched, PollWaiter(NO_G, partial(tell, channel, fd)), fd, event)


def tell(channel: Channel, fd: int, m: M) -> None:
    """The descriptor is ready; called by some M."""
    sched = m.sched
    value = cast("object", fd)
    sched.wait_lock.acquire()
    _, receiver = try_send(channel, value)
    sched.wait_lock.release()
    if receiver is not None:
        ready(sched, m, receiver)
