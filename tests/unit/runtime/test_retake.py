"""How a P comes back: the rules by hand, and a known number of calls that block."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reference_runtime.gmp import P_SYSCALL, P, Sched
from reference_runtime.host import Lock
from reference_runtime.policies import POLICIES, make_policy
from reference_runtime.policies.base import BLOCK, NORMAL, RAW, RetakePolicy, Site
from reference_runtime.policies.sysmon import SysmonPolicy
from reference_runtime.real_host import RealHost
from reference_runtime.record import Record
from reference_runtime.workloads import run_workload
from tracer.errors import PretakeError

MS = 1_000_000


def test_the_monitor_sleeps_20_us_for_50_idle_rounds_and_then_doubles_to_10_ms() -> None:
    policy = SysmonPolicy()
    sleeps_us = []
    delay_ns = 0
    for idle_rounds in range(62):
        delay_ns = policy.monitor_sleep_ns(idle_rounds, delay_ns)
        sleeps_us.append(delay_ns // 1000)
    assert sleeps_us[:51] == [20] * 51
    assert sleeps_us[51:] == [40, 80, 160, 320, 640, 1280, 2560, 5120, 10000, 10000, 10000]
    assert policy.monitor_sleep_ns(0, delay_ns) == 20_000


def blocked_p(policy: RetakePolicy, queued: int, idle: int) -> tuple[Sched, P]:
    sched = Sched(RealHost(), policy, 1, 4, Record())
    sched.npidle = idle
    p = P(0, 4, Lock())
    p.status = P_SYSCALL
    p.runqtail = queued
    return sched, p


@pytest.mark.parametrize(
    ("queued", "idle", "retaken"),
    [
        (1, 0, [False, True]),  # work waits: at the second sighting
        (0, 0, [False, True]),  # no other P could take what comes
        (1, 1, [False, True]),
        (0, 1, [False, False]),  # nothing waits and a P is free: left alone
    ],
)
def test_a_p_is_retaken_at_the_second_sighting(
    queued: int, idle: int, retaken: list[bool]
) -> None:
    policy = SysmonPolicy()
    sched, p = blocked_p(policy, queued, idle)
    assert [policy.sighted_twice(sched, p, now) for now in (0, 1)] == retaken


def test_a_p_that_is_left_alone_is_retaken_after_10_ms() -> None:
    policy = SysmonPolicy()
    sched, p = blocked_p(policy, 0, 1)
    at_ns = [0, 5 * MS, 10 * MS - 1, 10 * MS]
    assert [policy.sighted_twice(sched, p, now) for now in at_ns] == [False] * 3 + [True]


def test_another_call_on_the_same_p_is_seen_as_new() -> None:
    policy = SysmonPolicy()
    sched, p = blocked_p(policy, 1, 0)
    assert not policy.sighted_twice(sched, p, 0)
    p.syscalltick += 1
    assert not policy.sighted_twice(sched, p, 1)
    assert policy.sighted_twice(sched, p, 2)


@pytest.mark.parametrize(
    ("policy", "modes"),
    [
        ("sysmon", [RAW, NORMAL, NORMAL]),
        ("block", [RAW, BLOCK, BLOCK]),
        ("raw", [RAW, RAW, RAW]),
    ],
)
def test_which_way_a_call_goes(policy: str, modes: list[int]) -> None:
    sites = [Site("never", RAW), Site("perhaps", NORMAL), Site("always", BLOCK)]
    assert [make_policy(policy).mode(site) for site in sites] == modes


def test_a_policy_is_registered_under_its_name() -> None:
    assert all(cls.name == name for name, cls in POLICIES.items())
    with pytest.raises(PretakeError, match="no retake policy is called 'psychic'"):
        make_policy("psychic")


@pytest.mark.parametrize(
    ("policy", "procs", "retakes", "handoffs"),
    [("sysmon", 1, 23, 0), ("block", 1, 0, 23), ("raw", 2, 0, 0)],
)
def test_23_calls_that_block_are_counted(
    policy: str, procs: int, retakes: int, handoffs: int, tmp_path: Path
) -> None:
    witness = tmp_path / "witness.jsonl"
    result = run_workload("prime", policy=policy, procs=procs, rounds=23, witness=witness)
    counters = result["runtime"]
    assert isinstance(counters, dict)
    assert (counters["retakes"], counters["handoffs"]) == (retakes, handoffs)
    rows = [json.loads(line) for line in witness.read_text().splitlines()]
    assert len(rows) == retakes
    for row in rows:
        assert set(row) == {"ts_ns", "enter_ns", "p", "tid", "goid", "reason"}
        assert row["ts_ns"] > row["enter_ns"]
        assert (row["p"], row["goid"], row["reason"]) == (0, 1, "sysmon")
