"""Who waits for a channel: in which order, and what is left of it afterwards."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from reference_runtime import Channel, Runtime, WaitGroup, go, gosched, recv_case, select
from reference_runtime.switch import SWITCH, PythonSwitch

MS = 1_000_000


class Value:
    """Something of the program's."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is freed is freed by its last reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_who_gives_up_in_the_middle_leaves_the_others_in_order() -> None:
    async def main() -> list[object]:
        channel, over = Channel(), WaitGroup(1)

        async def sends(value: int, timeout_ns: int) -> None:
            try:
                await channel.send(value, timeout_ns)
            except TimeoutError:
                over.done()

        for value, timeout_ns in ((1, -1), (2, MS), (3, -1)):
            go(sends(value, timeout_ns))
        await over.wait()
        return [await channel.recv(), await channel.recv()]

    assert Runtime(1).run(main) == [1, 3]


def test_a_select_leaves_every_queue_one_channel_twice_among_them() -> None:
    async def main() -> list[bool]:
        left, right = Channel(), Channel()
        waits = WaitGroup(1)

        async def chooses() -> None:
            await select([recv_case(left), recv_case(right), recv_case(left)])
            waits.done()

        go(chooses())
        await gosched()
        there = [left.recvq.first is not None, right.recvq.first is not None]
        await right.send(1)
        await waits.wait()
        ends = (left.recvq.first, left.recvq.last, right.recvq.first, right.recvq.last)
        return [*there, *(end is None for end in ends)]

    assert Runtime(1).run(main) == [True] * 6


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("receiver_first", [True, False])
def test_what_was_sent_is_held_by_its_receiver_alone(receiver_first: bool) -> None:
    """Both sides have waited before, and wait again: their waiters are kept, and hold nothing."""

    async def main() -> list[bool]:
        channel, alive = Channel(), []

        async def sends() -> None:
            for _ in range(2):
                if receiver_first:
                    await gosched()
                await channel.send(Value())
            await gosched()

        go(sends())
        for _ in range(2):
            if not receiver_first:
                await gosched()
            value = await channel.recv()
            seen = weakref.ref(value)
            del value
            await gosched()
            alive.append(seen() is not None)
        return alive

    assert Runtime(1).run(main) == [False, False]


@pytest.mark.usefixtures("no_collector")
def test_a_goroutine_that_waited_and_ended_is_freed_without_the_collector() -> None:
    def goroutines() -> int:
        return sum(type(thing).__name__ == "G" for thing in gc.get_objects())

    async def main() -> int:
        channel, done = Channel(), WaitGroup(50)

        async def waits() -> None:
            await channel.recv()
            done.done()

        before = goroutines()
        for _ in range(50):
            go(waits())
        await gosched()
        for _ in range(50):
            await channel.send(1)
        await done.wait()
        return goroutines() - before

    # The last ones may stand in a queue's or an M's hand.
    told = Runtime(1).run(main)
    assert isinstance(told, int)
    assert told < 5


@pytest.mark.parametrize("switch", [SWITCH, PythonSwitch()])
def test_a_switch_yields_once_each_time_it_is_awaited(switch: PythonSwitch) -> None:
    async def twice() -> str:
        await switch
        await switch
        return "over"

    steps = twice()
    assert [steps.send(None), steps.send(None)] == [None, None]
    with pytest.raises(StopIteration, match="over"):
        steps.send(None)
