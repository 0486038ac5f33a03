"""What it costs to wait for readiness: bytes for a connection, ns for a wake-up.

The rows of :mod:`bench.discussion` on netstack's ways of waiting are measured by these, on the
reference runtime.
"""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from pathlib import Path
from statistics import median

from reference_runtime import (
    Channel,
    Runtime,
    Sleeper,
    WaitGroup,
    Waker,
    go,
    gosched,
    notify_readable,
    recv_case,
    select,
    wait_readable,
)
from reference_runtime.goroutines import current_host

__all__ = ["bytes_of", "wake_ns"]

ROUNDS = 3


async def idle(way: str, fds: list[int], channel: Channel, gs: list[int]) -> None:
    """Connections that wait in one way."""

    async def waits(fd: int) -> None:
        held = bytearray(4096) if way == "buffer" else b""
        gs.append(fd)
        await wait_readable(fd)
        del held

    for fd in fds:
        if way == "channel":
            notify_readable(fd, channel)
        else:
            go(waits(fd))
    while way != "channel" and len(gs) < len(fds):
        await gosched()


def bytes_of(way: str, many: int) -> float:
    """Memory that an idle connection takes, without the kernel's part."""
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(many)]

    async def main() -> float:
        gc.collect()
        before = resident()
        await idle(way, fds, Channel(many), [])
        return (resident() - before) / many

    told = Runtime(1, preempt="off").run(main)
    for fd in fds:
        with suppress(OSError):
            os.close(fd)
    assert isinstance(told, float)
    return told


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wake_ns(how: str, many: int) -> float:
    """Time of one wake-up by the last of the sources."""
    rounds = 3_000

    async def main() -> float:
        sleeper, wakers = Sleeper(), [Waker() for _ in range(many)]
        channels = [Channel() for _ in range(many)]
        for waker in wakers:
            sleeper.add(waker)
        done = WaitGroup(1)
        fetched: list[int] = []

        async def waits() -> None:
            cases = [recv_case(channel) for channel in channels]
            for _ in range(rounds):
                if how == "sleeper":
                    await sleeper.fetch()
                else:
                    await select(cases)
                fetched.append(1)
            done.done()

        go(waits())
        begin_ns = current_host().nanotime()
        for number in range(rounds):
            if how == "sleeper":
                wakers[-1].wake()
            else:
                await channels[-1].send(0)
            while len(fetched) <= number:
                await gosched()
        await done.wait()
        return (current_host().nanotime() - begin_ns) / rounds

    told = [Runtime(1).run(main) for _ in range(ROUNDS)]
    return median([ns for ns in told if isinstance(ns, float)])
