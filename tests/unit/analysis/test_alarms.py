"""Rules of a watch: how they are read, and when they fire."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.answers.alarms import Alarms, Fired
from analysis.answers.going import GoingPressure
from analysis.answers.rules import Rule, parse_rule
from analysis.ptime.engine.state import STATES
from analysis.ptime.engine.sums import BIN
from tests.unit.analysis.test_going import all_records, held_for_six_seconds
from tracer.errors import PretakeError

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("lost_p > 20 % for 1 s", ("lost_p", 0.2, 1)),
        ("lost_p>7.5%for", None),
        ("lost_p>7.5% for 12s", ("lost_p", 0.075, 12)),
        ("  lost_p > 0 %  ", ("lost_p", 0.0, 1)),
        ("hold_ns > 50 ms", ("hold_ns", 50e6, 1)),
        ("hold_ns>.5s", ("hold_ns", 5e8, 1)),
        ("hold_ns > 3 µs", ("hold_ns", 3e3, 1)),
        ("hold_ns > 3 us", ("hold_ns", 3e3, 1)),
        ("stw_ns > 10000000 ns", ("stw_ns", 1e7, 1)),
        ("", None),
        ("hold_ns", None),
        ("hold_ns > 50", None),
        ("hold_ns < 50 ms", None),
        ("hold_ns > -50 ms", None),
        ("hold_ns > 50 parsecs", None),
        ("hold_ns > 50 %", None),
        ("hold_ns > 50 ms for 3 s", None),
        ("hold_ns > 50 ms; rm -rf /", None),
        ("hold_ns > 99999999999999999999 s", None),
        ("lost_p > 20 ms", None),
        ("lost_p > 100 %", None),
        ("lost_p > 20 % for 0 s", None),
        ("lost_p > 20 % for 5 m", None),
        ("lost_p > 20 % for 4000 s", None),
        ("latency > 3 ms", None),
        ("hold_ns > 1e3 ms", None),
        ("hold_ns > 5\n0 ms", None),
    ],
)
def test_a_rule_is_read_or_refused_in_one_line(
    text: str, rule: tuple[str, float, int] | None
) -> None:
    if rule is not None:
        assert parse_rule(text) == Rule(text.strip(), *rule)
        return
    with pytest.raises(PretakeError) as told:
        parse_rule(text)
    assert "\n" not in str(told.value)


def columns(names: tuple[str, ...], *rows: tuple[int, ...]) -> dict[str, np.ndarray]:
    whole = np.array(rows, np.int64).reshape(len(rows), len(names))
    return {name: whole[:, at] for at, name in enumerate(names)}


def test_each_long_hold_fires_in_the_order_of_time() -> None:
    alarms = Alarms([parse_rule("hold_ns > 50 ms"), parse_rule("hold_ns > 1 s")])
    holds = columns(
        ("pid", "block_ns", "end_ns"),
        (7, 3 * SECOND, 3 * SECOND + 50_000_001),
        (7, 2 * SECOND, 2 * SECOND + 50_000_000),
        (8, 1 * SECOND, 3 * SECOND),
    )
    found = alarms.ask("holds", holds)
    assert [(fired.event_ns, fired.pid, fired.rule.text) for fired in found] == [
        (SECOND, 8, "hold_ns > 50 ms"),
        (SECOND, 8, "hold_ns > 1 s"),
        (3 * SECOND, 7, "hold_ns > 50 ms"),
    ]
    assert [fired.what for fired in found] == ["2 s", "2 s", "50 ms"]
    assert alarms.ask("latencies", {}) == []


def test_a_stop_is_as_long_as_goroutines_stood() -> None:
    alarms = Alarms([parse_rule("stw_ns > 10 ms")])
    stops = columns(
        ("pid", "begin_ns", "stand_ns", "end_ns"), (7, 100, 200, 10_000_100), (7, 50, -1, 10**8)
    )
    (fired,) = alarms.ask("stops", stops)
    assert (fired.event_ns, fired.pid) == (50, 7)


def lost_seconds(alarms: Alarms, shares: list[int], pid: int = 7) -> list[int]:
    """The seconds at whose end it fires, of lost P time in percent of each second."""
    found: list[Fired] = []
    fired_at = []
    for second, _ in enumerate(shares, 1):
        row = dict.fromkeys(BIN, 0)
        row |= {"pid": pid, "ts_ns": second * SECOND, "p_ns": 2 * second * SECOND}
        row["least_syscall_ns"] = sum(shares[:second]) * SECOND // 50 // 2
        row["least_stw_ns"] = row["least_syscall_ns"]
        assert STATES[1:7] == ("syscall", "fault", "no_cpu", "stopped", "transit", "stw")
        bins = {name: np.array([value]) for name, value in row.items()}
        found = alarms.ask("bins", bins)
        fired_at += [second] * len(found)
    return fired_at


@pytest.mark.parametrize(
    ("rule", "shares", "fires"),
    [
        ("lost_p > 20 %", [10, 30, 10, 30], [2, 4]),
        # While it holds it fires once.
        ("lost_p > 20 %", [30, 30, 30, 0, 30], [1, 5]),
        ("lost_p > 20 % for 3 s", [30, 30, 10, 30, 30, 30, 30], [6]),
        ("lost_p > 20 %", [20, 20], []),
    ],
)
def test_lost_p_is_asked_of_each_second(rule: str, shares: list[int], fires: list[int]) -> None:
    assert lost_seconds(Alarms([parse_rule(rule)]), shares) == fires


def test_two_processes_are_asked_apart() -> None:
    alarms = Alarms([parse_rule("lost_p > 20 % for 2 s")])
    assert lost_seconds(alarms, [30, 10]) == []
    assert lost_seconds(alarms, [30, 30], pid=8) == [2]


def test_rules_are_asked_of_rows_as_they_come(tmp_path: Path) -> None:
    """The scene: the only P is held in read from 12 to 18 s, and in a fault from 18.5 to 19 s."""
    trace = held_for_six_seconds().write(tmp_path)
    alarms = Alarms([parse_rule("hold_ns > 1 s"), parse_rule("lost_p > 90 % for 2 s")])
    found: list[Fired] = []
    going = GoingPressure(
        0, "reference", on_settled=lambda name, rows: found.extend(alarms.ask(name, rows))
    )
    going.feed(all_records(trace), {"reach": trace.arrow("reach")}, 22 * SECOND)
    assert [(fired.rule.metric, fired.event_ns) for fired in found] == [
        ("hold_ns", 12 * SECOND),
        ("lost_p", 12 * SECOND),
    ]
