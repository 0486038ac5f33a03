"""What a host's stopper promises (``host.py``), and that the contract asks for all of a host."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import reference_runtime
from reference_runtime.gmp import NO_G, NO_P, M, Sched
from reference_runtime.host import Stopper
from reference_runtime.policies.sysmon import SysmonPolicy
from reference_runtime.record import Record
from reference_runtime.sim.sim_host import SimHost
from tests.unit.runtime.any_host import MS, Machine

SIGURG = 23
HERE = Path(__file__).parent
NOT_WANTED, UNSAFE_POINT, NOT_RUNNING_G = 1, 2, 3


class Stopped:
    """A thread with a slot, which computes, and a stopper beside it."""

    def __init__(self, machine: Machine, nosplit: bool = False, runs_g: bool = True) -> None:
        host = self.host = machine.host
        host.end_loops(False)
        stopper = host.new_stopper()
        assert stopper is not None
        self.stopper: Stopper = stopper
        sched = Sched(host, SysmonPolicy(), 1, 4, Record())
        self.m = M(0, sched, host.new_note(), host.new_note())
        self.nosplit = nosplit
        self.runs_g = runs_g
        self.slot = 0
        self.ended = False
        self.there = host.new_note()
        self.before_loop: Callable[[], None] = lambda: None

    def loops(self) -> None:
        self.m.tid = self.host.thread_id()
        self.slot = self.stopper.thread_begins(self.m)
        self.stopper.runs_goroutines(self.slot, self.runs_g)
        self.there.wakeup()
        self.before_loop()
        self.host.endless_loop(self.nosplit)
        self.stopper.thread_ends()
        self.ended = True

    def ask(self) -> None:
        """Ask once, as soon as an earlier signal was handled."""
        while not self.stopper.ask(self.slot, self.m.tid, NO_P, NO_G):
            self.host.usleep(MS // 10)

    def signal(self) -> None:
        self.host.tgkill(self.m.tid, SIGURG)


def test_a_stopper_stops_a_thread_in_a_kernel_and_lets_it_go_on(machine: Machine) -> None:
    scene = Stopped(machine)
    host, stopper = scene.host, scene.stopper

    def stops() -> list[object]:
        scene.there.sleep()
        slot = scene.slot
        told: list[object] = [stopper.stopped(slot)]
        while not stopper.stopped(slot):
            seen = stopper.count()
            if stopper.ask(slot, scene.m.tid, NO_P, NO_G):
                scene.signal()
            if not stopper.stopped(slot):
                stopper.wait(seen, MS)
        told.append(stopper.ask(slot, scene.m.tid, NO_P, NO_G))  # it stands already
        host.end_loops(True)
        stopper.resume(slot, NO_P, NO_G)
        told.append(stopper.stopped(slot))
        return told

    assert machine.run(scene.loops, stops)[1] == [False, False, False]
    scene.signal()  # it is gone, and that is no error
    assert stopper.end()[0] == 1


@pytest.mark.parametrize("reason", [NOT_WANTED, NOT_RUNNING_G])
def test_a_stop_is_refused_and_counted_by_its_reason(machine: Machine, reason: int) -> None:
    scene = Stopped(machine, runs_g=reason != NOT_RUNNING_G)
    host, stopper = scene.host, scene.stopper
    asked, withdrawn = host.new_note(), host.new_note()

    def withdraws() -> None:
        asked.sleep()
        stopper.withdraw(scene.slot)
        withdrawn.wakeup()

    if reason == NOT_WANTED:
        scene.before_loop = withdraws

    def asks() -> bool:
        scene.there.sleep()
        scene.ask()
        if reason == NOT_WANTED:
            asked.wakeup()
            withdrawn.sleep()
        scene.signal()
        # To ask again is possible only when the signal has come.
        scene.ask()
        stopped = stopper.stopped(scene.slot)
        host.end_loops(True)
        return stopped

    assert machine.run(scene.loops, asks)[1] is False
    counts = [0, 0, 0, 0]
    counts[reason] = 1
    assert list(stopper.end()) == counts


def test_a_kernel_that_is_no_safe_point_refuses(machine: Machine) -> None:
    """The first signals may meet the thread at a line of this file, on its way into the kernel."""
    scene = Stopped(machine, nosplit=True)
    host, stopper = scene.host, scene.stopper
    signals = 6

    def let_go_on() -> None:
        if stopper.stopped(scene.slot):
            stopper.resume(scene.slot, NO_P, NO_G)

    def ask() -> None:
        while not stopper.ask(scene.slot, scene.m.tid, NO_P, NO_G):
            let_go_on()
            host.usleep(MS // 10)

    def asks() -> None:
        scene.there.sleep()
        for _ in range(signals):
            ask()
            scene.signal()
        ask()  # the last has come too
        host.end_loops(True)
        while not scene.ended:
            let_go_on()
            host.usleep(MS // 10)

    machine.run(scene.loops, asks)
    counts = stopper.end()
    assert counts[UNSAFE_POINT] >= 1
    assert counts[0] + counts[UNSAFE_POINT] == signals
    if isinstance(host, SimHost):
        assert counts[0] == 0


def test_who_waits_for_a_stop_is_told_of_an_announcement(machine: Machine) -> None:
    scene = Stopped(machine)
    stopper = scene.stopper

    def waits() -> int:
        seen = stopper.count()
        scene.there.wakeup()
        while stopper.count() == seen:
            stopper.wait(seen, 1_000_000 * MS)
        return stopper.count() - seen

    def announces() -> None:
        scene.there.sleep()
        stopper.announce()

    assert machine.run(waits, announces) == [1, None]
    stopper.end()


def methods(source: Path) -> set[str]:
    """What the classes of a file promise."""
    classes = [
        node for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef)
    ]
    return {f.name for c in classes for f in c.body if isinstance(f, ast.FunctionDef)}


def test_the_contract_asks_for_every_method_of_a_host() -> None:
    asked: set[str] = set()
    for source in [*HERE.glob("test_*_contract.py"), HERE / "any_host.py"]:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute):
                asked.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                asked.add(node.value)
    assert methods(Path(reference_runtime.__file__).with_name("host.py")) - asked == set()
