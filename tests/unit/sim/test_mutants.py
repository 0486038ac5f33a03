"""The tests' own test: each of these bugs, put in on purpose, must be found by the properties."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.unit.sim.mutants import MUTANTS
from tests.unit.sim.packages import NO_MUTANT, Mutant, Package, load
from tests.unit.sim.programs import Run, Setting, Step, deadlocks, runs, starves_nobody
from tests.unit.sim.test_properties import BOUNDED


def check_properties(package: Package, mutant: Mutant) -> None:
    """The properties of test_properties.py, for the policies under which the bug shows."""

    @settings(BOUNDED, max_examples=300)
    @given(runs(list(mutant.policies), mutant.likes))
    def holds(run: tuple[list[Step], Setting]) -> None:
        Run(package, *run).go()

    deadlocks(package, Setting("sysmon", 2, 2, 4, 0), 2)
    starves_nobody(package, Setting("sysmon", 1, 2, 4, 0))
    short_calls = [Step("block", who, ns) for ns in (15_000, 80_000) * 10 for who in range(6)]
    Run(package, short_calls, Setting("sysmon", 2, 8, 4, 0)).go()
    holds()


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_bug_is_found(mutant: Mutant) -> None:
    with load(mutant) as package:
        told = (
            AssertionError,  # a broken invariant among them
            package.deadlock.Deadlock,
            package.errors.DeadlockError,
            package.errors.LivelockError,
            RuntimeError,  # by a lock, a note, or the scheduler itself
            ValueError,  # by the interpreter: "coroutine already executing"
            pytest.fail.Exception,  # no deadlock told
        )
        with pytest.raises(told):
            check_properties(package, mutant)


def test_copy_without_bug_passes() -> None:
    with load(NO_MUTANT) as package:
        check_properties(package, NO_MUTANT)
