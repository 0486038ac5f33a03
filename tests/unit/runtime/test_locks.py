"""The rule of scheduler.py: under a lock nobody else runs, and no foreign code."""

from __future__ import annotations

import gc
import importlib
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from reference_runtime import (
    Channel,
    Mutex,
    Runtime,
    Sleeper,
    WaitGroup,
    Waker,
    after,
    close,
    go,
    gosched,
    nanosleep,
    notify_readable,
    recv_case,
    select,
    send_case,
    sleep,
    spin,
    wait_readable,
)
from reference_runtime.current import COMPILED
from reference_runtime.goroutines import current_host, getg
from reference_runtime.knowing import LockBook
from reference_runtime.like import LIKE
from reference_runtime.locks import NO_GIL
from reference_runtime.policies import POLICIES
from reference_runtime.real_host import RealHost
from reference_runtime.sim.locks import SimLock
from reference_runtime.sim.sim_host import SimHost
from reference_runtime.stopping import stopped_world, suspended
from tests.unit.sim.packages import COPY, NO_MUTANT, load

US = 1_000
REAL = sorted(set(POLICIES) - {"ums", "upcall"})
"""``upcall`` takes root: tests/kernel/test_upcall.py."""


class Value:
    """Tells where its last reference was dropped."""

    def __init__(self, book: LockBook, told: list[str]) -> None:
        self.book = book
        self.told = told

    def __del__(self) -> None:
        if self.book.holds():
            self.told.append("".join(traceback.format_stack()))


async def everything(book: LockBook, dropped: list[str]) -> None:
    """A bit of all that takes a lock."""
    channel, mutex, done = Channel(), Mutex(), WaitGroup(7)

    async def sends() -> None:
        for _ in range(40):
            await channel.send(Value(book, dropped))
            await mutex.lock()
            await gosched()
            mutex.unlock()
        done.done()

    async def receives() -> None:
        for _ in range(20):
            await select([recv_case(channel), recv_case(Channel())])
            await channel.recv()
        done.done()

    async def calls() -> None:
        for _ in range(10):
            await nanosleep(50 * US)
            await sleep(20 * US)
            await spin(50 * US)
        done.done()

    async def times_out() -> None:
        full = Channel(1)
        for _ in range(10):
            with pytest.raises(TimeoutError):
                await Channel().recv(timeout_ns=10 * US)
            await select([send_case(full, Value(book, dropped)), recv_case(after(30 * US))])
        full.close()
        done.done()

    async def polls() -> None:
        for _ in range(5):
            one, other = current_host().tcp_pair()
            with pytest.raises(TimeoutError):
                await wait_readable(one, timeout_ns=10 * US)
            current_host().write(other, b"x")
            await wait_readable(one)
            close(one)
            close(other)
        done.done()

    async def stops() -> None:
        me = getg()
        for _ in range(5):
            async with stopped_world():
                await spin(10 * US)
            async with suspended(me if me is not getg() else main):
                await spin(10 * US)
            await sleep(100 * US)
        done.done()

    async def sources() -> None:
        sleeper, wakers = Sleeper(), [Waker(), Waker()]
        for waker in wakers:
            sleeper.add(waker)
        ready = Channel(1)
        for number in range(10):
            one, other = current_host().tcp_pair()
            notify_readable(one, ready)
            current_host().write(other, b"x")
            await ready.recv()
            close(one)
            close(other)
            with pytest.raises(TimeoutError):
                await sleeper.fetch(timeout_ns=10 * US)
            wakers[number % 2].wake()
            await sleeper.fetch()
        sleeper.done()
        done.done()

    main = getg()
    for work in (sends, receives, calls, times_out, polls, stops, sources):
        go(work())
    await done.wait()


@pytest.fixture
def collected() -> Iterator[list[object]]:
    """Where the collector began, one place for each time, with a collection at every object."""
    book = LockBook()
    places: list[str] = []

    def begins(phase: str, _info: dict[str, int]) -> None:
        if phase == "start" and book.holds():
            places.append("".join(traceback.format_stack()))

    before = gc.get_threshold()
    # What the process holds already is no matter: to go through it at every object takes minutes.
    gc.collect()
    gc.freeze()
    gc.callbacks.append(begins)
    gc.set_threshold(1)
    yield [book, places]
    gc.set_threshold(*before)
    gc.callbacks.remove(begins)
    gc.unfreeze()


@pytest.mark.skipif(not COMPILED, reason="the interpreter makes objects of its own, and switches")
@pytest.mark.parametrize(
    ("policy", "preempt", "like"),
    [
        *((policy, preempt, "lean") for policy in REAL for preempt in ("async", "cooperative")),
        *(("sysmon", "async", like) for like in LIKE if like != "lean"),
    ],
)
def test_under_a_lock_no_object_is_made_and_nobody_else_runs(
    policy: str, preempt: str, like: str, collected: list[object]
) -> None:
    book, places = collected
    assert isinstance(book, LockBook)
    dropped: list[str] = []

    async def main() -> None:
        await everything(book, dropped)

    Runtime(2, policy, host=RealHost(book=book), preempt=preempt, like=like).run(main)
    assert places == []
    assert dropped == []
    # Without a GIL two threads may want a lock at the same moment.
    assert book.waited == 0 or NO_GIL
    assert set(book.held.values()) == {0}


def test_the_lock_knows_who_holds_it() -> None:
    book = LockBook()
    lock = RealHost(book=book).new_lock()
    assert not book.holds()
    lock.acquire()
    assert book.holds()
    dropped: list[str] = []
    Value(book, dropped)
    assert len(dropped) == 1
    lock.release()
    assert not book.holds()


def test_a_simulated_thread_may_not_wait_while_it_holds_a_lock() -> None:
    host = SimHost(1)
    ended = host.new_note()
    told: list[str] = []

    def body() -> None:
        lock = host.new_lock()
        assert isinstance(lock, SimLock)
        lock.acquire()
        with pytest.raises(RuntimeError, match="waits for its sleep and holds a lock"):
            host.usleep(1)
        told.append("refused")
        lock.release()
        ended.wakeup()

    host.start_thread(body, "holder")
    host.wait_for_end(ended)
    host.close()
    assert told == ["refused"]


def test_who_stops_the_world_says_so_under_the_lock_of_its_p() -> None:
    """``preemptone`` looks at it under that lock, and may else be half way to asking."""
    told: list[tuple[bool, int]] = []
    with load(NO_MUTANT) as package:
        host = package.sim_host.SimHost(2)
        values: dict[int, bool] = {}

        def say(m: Any, value: bool) -> None:  # noqa: ANN401  an M of the interpreted copy
            values[id(m)] = value
            told.append((value, int(host.machine.running.locks)))

        m_class = importlib.import_module(f"{COPY}.gmp").M
        m_class.holds_world = property(lambda m: values[id(m)], say)

        async def main() -> None:
            async with package.stopping.stopped_world():
                await package.goroutines.spin(US)

        package.runtime.Runtime(1, host=host).run(main)
    assert told[-2:] == [(True, 1), (False, 1)]
