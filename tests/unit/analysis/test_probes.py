"""Both ways to tell a retake, in traces made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.trust.probes import compare_probes
from tracer.errors import PretakeError
from tracer.trace.made_trace import write_trace
from tracer.trace.reader import Trace

PID, SYSMON, OTHER = 7, 8, 9
_SWITCHES = ((SYSMON, OTHER), (OTHER, SYSMON))


def made(
    path: Path,
    rows: list[tuple[int, int | None, int, str]],
    model: str,
    off_cpu: tuple[tuple[int, int], ...] = (),
) -> Trace:
    """A trace with retakes: ts_ns, since_ns, P, reason; sysmon is off its CPU from, until."""
    switches = [(at, *who) for span in off_cpu for at, who in zip(span, _SWITCHES, strict=True)]
    return write_trace(
        path,
        {
            "task": {"ts_ns": [1], "tid": [SYSMON], "pid": [PID], "kind": ["fork"]},
            "runtime": {
                "ts_ns": [row[0] for row in rows],
                "since_ns": [row[1] for row in rows],
                "p": [row[2] for row in rows],
                "reason": [row[3] for row in rows],
                "tid": [SYSMON] * len(rows),
                "kind": ["retake" if row[1] is None else "retake_inferred" for row in rows],
            },
            "sched_switch": {
                "ts_ns": [switch[0] for switch in switches],
                "prev_tid": [switch[1] for switch in switches],
                "next_tid": [switch[2] for switch in switches],
                "prev_state": ["preempted"] * len(switches),
            },
        },
        {"asked": {"probes": "both"}, "target": {"runtime": "go", "p_in_syscall": model}},
    )


def test_each_is_matched_once_and_with_its_own_p(tmp_path: Path) -> None:
    rows = [
        (10_000, None, 0, "sysmon"),
        (14_000, 8_000, 0, "sysmon"),  # 10,000 lies in it
        (54_000, None, 1, "sysmon"),
        (49_000, 45_000, 1, "sysmon"),  # near, and not in it
        (90_000, None, 0, "stw"),  # nobody found it
        (5_000_000, 4_990_000, 1, "other"),  # nobody did it
        (52_000, 40_000, 2, "sysmon"),  # of another P
    ]
    told = compare_probes(made(tmp_path / "t", rows, "prunning"))
    assert (told.exact, told.inferred, told.matched, told.inside_count) == (3, 4, 2, 1)
    assert told.recall == 2 / 3
    assert told.precision == 2 / 4
    assert told.inside == 1 / 2
    assert told.interval_p50_ns == 4_000  # of 4 and 6 µs
    assert told.missed == {"stw": 1}
    assert told.invented == {"other": 1, "sysmon": 1}


@pytest.mark.parametrize(
    ("true_ns", "inside"), [(45_000, 0), (45_001, 1), (49_000, 1), (53_000, 1), (53_001, 0)]
)
def test_a_uprobe_may_tell_it_later_by_its_trap_and_never_sooner(
    tmp_path: Path, true_ns: int, inside: int
) -> None:
    rows = [(true_ns, None, 1, "sysmon"), (49_000, 45_000, 1, "sysmon")]
    assert compare_probes(made(tmp_path / "t", rows, "prunning")).inside_count == inside


@pytest.mark.parametrize("reason", ["exitsyscall", "stw"])
@pytest.mark.parametrize(
    ("told_ns", "inside"), [(41_000, 0), (41_001, 1), (45_000, 1), (49_000, 1), (49_001, 0)]
)
def test_a_uprobe_that_stands_before_the_take_tells_it_sooner_and_never_later(
    tmp_path: Path, told_ns: int, inside: int, reason: str
) -> None:
    rows = [(told_ns, None, 1, reason), (49_000, 45_000, 1, reason)]
    assert compare_probes(made(tmp_path / "t", rows, "prunning")).inside_count == inside


@pytest.mark.parametrize(
    ("off_cpu", "inside"),
    [
        # It ran for 1 µs after its uprobe had told, and for 3 µs more when it was back.
        (((41_000, 9_042_001),), 1),
        (((41_000, 9_042_000),), 0),
        # For 1 µs, for 2 µs, and for 1 µs more.
        (((41_000, 9_000_000), (9_002_000, 9_044_001)), 1),
        (((41_000, 9_000_000), (9_002_000, 9_044_000)), 0),
    ],
)
def test_who_loses_its_cpu_behind_such_a_uprobe_takes_p_late(
    tmp_path: Path, off_cpu: tuple[tuple[int, int], ...], inside: int
) -> None:
    rows = [(40_000, None, 1, "exitsyscall"), (9_049_000, 9_045_000, 1, "sysmon")]
    told = compare_probes(made(tmp_path / "t", rows, "prunning", off_cpu))
    assert (told.matched, told.inside_count) == (1, inside)


@pytest.mark.parametrize(
    ("off_cpu", "inside"),
    [
        # It had run for 2 µs when its uprobe told, and for 2 µs more until it had left.
        (((51_000, 9_058_000),), 1),
        (((51_001, 9_058_000),), 0),
        # For 2 µs, for 1 µs, and for 1 µs more.
        (((50_000, 9_052_000), (9_053_000, 9_058_000)), 1),
        (((50_001, 9_052_000), (9_053_000, 9_058_000)), 0),
    ],
)
def test_who_loses_its_cpu_before_its_uprobe_tells_it_late(
    tmp_path: Path, off_cpu: tuple[tuple[int, int], ...], inside: int
) -> None:
    rows = [(9_060_000, None, 1, "sysmon"), (49_000, 45_000, 1, "sysmon")]
    told = compare_probes(made(tmp_path / "t", rows, "prunning", off_cpu))
    # One that is just too late is the same retake still.
    assert (told.matched, told.inside_count) == (1, inside)


def test_who_had_its_cpu_for_long_has_no_excuse(tmp_path: Path) -> None:
    rows = [(9_060_000, None, 1, "sysmon"), (49_000, 45_000, 1, "sysmon")]
    told = compare_probes(made(tmp_path / "t", rows, "prunning", ((50_000, 9_056_000),)))
    assert (told.matched, told.missed, told.invented) == (0, {"sysmon": 1}, {"sysmon": 1})


@pytest.mark.parametrize(("model", "alone"), [("psyscall", 1), ("prunning", 0)])
def test_what_no_uprobe_can_tell_is_no_error(tmp_path: Path, model: str, alone: int) -> None:
    rows = [
        (10_000, None, 0, "sysmon"),
        (11_000, 9_000, 0, "sysmon"),
        (90_000, 80_000, 0, "exitsyscall"),
    ]
    told = compare_probes(made(tmp_path / "t", rows, model))
    assert told.without_witness == alone
    assert told.inferred == 2 - alone
    assert told.matched == 1


def test_a_trace_of_one_way_has_nothing_to_compare(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t", {}, {"asked": {"probes": "none"}})
    with pytest.raises(PretakeError, match="record --probes both"):
        compare_probes(trace)
