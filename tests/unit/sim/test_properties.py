"""Random programs under random interleavings, with every invariant checked at every step."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.unit.sim.packages import Package
from tests.unit.sim.programs import (
    Run,
    Setting,
    Step,
    deadlocks,
    runs,
    settings_of_run,
    starves_nobody,
)

PACKAGE = Package("reference_runtime")
POLICIES = sorted(PACKAGE.policies.POLICIES)
LIKE_GO = ("go1.13", "go1.21", "go1.27", "gvisor")

BOUNDED = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # take Phase.shrink in to work on a failure
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize("policy", POLICIES)
def test_invariants_hold(policy: str) -> None:
    @BOUNDED
    @given(runs([policy]))
    def holds(run: tuple[list[Step], Setting]) -> None:
        Run(PACKAGE, *run).go()

    holds()


@settings(BOUNDED, max_examples=80)
@given(runs(POLICIES, LIKE_GO))
def test_invariants_hold_by_gos_rules(run: tuple[list[Step], Setting]) -> None:
    Run(PACKAGE, *run).go()


@pytest.mark.parametrize(("like", "preempt"), [("go1.13", "cooperative"), ("go1.21", "async")])
def test_a_pair_that_shares_a_time_slice_does_so_for_one_slice(like: str, preempt: str) -> None:
    """Two that ready each other leave the queue alone, until the monitor ends their slice."""
    setting = Setting("sysmon", 1, 2, 4, 0, preempt=preempt, slice_ns=200_000, like=like)
    starves_nobody(PACKAGE, setting, 2_000_000)


@settings(BOUNDED, max_examples=25)
@given(runs(POLICIES))
def test_same_seed_same_run(run: tuple[list[Step], Setting]) -> None:
    first = Run(PACKAGE, *run).go()
    second = Run(PACKAGE, *run).go()
    assert first.host.machine.log == second.host.machine.log
    assert first.done == second.done
    assert first.runtime.record.retakes == second.runtime.record.retakes


def test_another_seed_is_another_run() -> None:
    program = [Step("block", who, 80_000) for who in range(6)]
    logs = []
    for seed in (1, 2):
        setting = Setting("sysmon", 2, 2, 4, seed, {"one_in": 3})
        logs.append(Run(PACKAGE, program, setting).go().host.machine.log)
    assert logs[0] != logs[1]


@settings(BOUNDED, max_examples=40)
@given(st.sampled_from(POLICIES).flatmap(settings_of_run), st.integers(1, 6))
def test_a_deadlock_is_reported(setting: Setting, count: int) -> None:
    """Goroutines that wait for ever are told with what each waits for."""
    deadlocks(PACKAGE, setting, count)


@settings(BOUNDED, max_examples=20)
@given(st.sampled_from(["block", "sysmon"]).flatmap(settings_of_run))
def test_nobody_starves(setting: Setting) -> None:
    starves_nobody(PACKAGE, setting)
