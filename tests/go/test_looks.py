"""All Ps and all waiting work, read from a program whose state is known to the last goroutine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.go.capture import capture
from tests.go.looked import inspected, looked
from tracer.capture.options import probe_defines
from tracer.capture.programs import Programs
from tracer.targets.go import GoBinary

VERSIONS = ("1.19.8", "1.22.10", "1.25.5", "1.26.6", "1.27.3")
TWO_PS = {"GOMAXPROCS": "2", "GODEBUG": "asyncpreemptoff=1"}
SWITCHES = "3"
RUNS = 20
TOLD = 20
"""States of a P in a call that are wanted, from as many runs as that takes, up to ``RUNS``."""
HOUR_NS = 3600 * 10**9
FAR = 0x7FFFF000
SEEN = ["runq", "global_runq", "timers_due", "npidle", "nmspinning", "gomaxprocs", "unseen"]
# 5 and 3 goroutines in the queues, one of two timers due, both Ps at work.
STANDING = (8, 0, 1, 0, 0, 2, 0)
CALLS_WITH_P = (0, 72, 97, 283, 302)
"""Those of ``passing`` that the scheduler knows: read, timerfd_create, and some at the begin."""


def states(waiting: pd.DataFrame) -> set[tuple[int, ...]]:
    return set(waiting[SEEN].fillna(-1).astype(int).itertuples(index=False, name=None))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_waits_is_what_the_program_left_waiting(
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in TWO_PS.items():
        monkeypatch.setenv(name, value)
    trace = capture(tmp_path / "t", "standing", [SWITCHES], version=version, probes="none")
    waiting = trace.frame("waiting")
    assert STANDING in states(waiting)
    standing = waiting[(waiting["runq"] == 8) & (waiting["timers_due"] == 1)]
    # Both Ps were read at each of these looks.
    assert (standing["runq_least"] == 8).all()
    assert (standing["oldest_ns"] == standing["ts_ns"]).all()
    assert (standing["gcwaiting"] == 0).all()
    # The earliest of the timers is the one that is due; before there was one, the one of an hour.
    assert (standing["timer_ns"] <= standing["ts_ns"]).all()
    due_ns = int(capfd.readouterr().out.split("due=")[1])
    later = waiting[waiting["timer_ns"] > waiting["ts_ns"]]
    assert (later["timer_ns"] - due_ns).between(0, 10**9).any()
    # No probe, and no text changed for one.
    assert not [name for name in trace.manifest.attached if name.startswith("uprobe:runtime")]


def test_the_states_of_ps_are_told_when_they_change(kernel: Programs) -> None:
    tables = looked(kernel, inspected("standing", "1.27.3"), SWITCHES, TWO_PS)
    # The rings are of one CPU each.
    states_of_ps, switches = tables["pstate"].sort_values("ts_ns"), tables["sched_switch"]
    assert set(states_of_ps["p"]) == {0, 1}
    # A look may fall into the stop of the world in which the program turns its collector off.
    assert {"idle", "running"} <= set(states_of_ps["status"]) <= {"idle", "running", "gcstop"}
    assert states_of_ps.groupby("p").head(1)["since_ns"].isna().all()
    seen = states_of_ps[states_of_ps["since_ns"].notna()]
    assert (seen["since_ns"] < seen["ts_ns"]).all()
    running = states_of_ps[states_of_ps["status"] == "running"]
    # Whoever has a P is a thread of the program, and the two were on CPUs.
    assert running["tid"].notna().all()
    assert set(running["tid"]) <= set(switches["next_tid"])
    assert states_of_ps.loc[states_of_ps["status"] == "idle", "tid"].isna().all()


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("p_runqhead", 8),
        ("p_runqhead", -16),
        ("p_runqtail", 4),
        ("p_runqtail", -8),
        ("p_runnext", 8),
        ("p_runnext", 16),
        ("p_timer", 8),
        ("p_timer", -24),
        ("p_id", 4),
        ("p_id", 16),
        ("sched_npidle", None),
        ("sched_npidle", FAR),
        ("sched_nmspinning", None),
        ("sched_nmspinning", FAR),
        ("sched_runqsize", None),
        ("sched_runqsize", FAR),
        ("allp", 8),
        ("allp", -8),
    ],
)
def test_a_wrong_offset_gives_another_answer(
    kernel: Programs, field: str, wrong: int | None
) -> None:
    """The first field of schedt is goidgen, which is never 0; far behind it is no memory."""
    binary: GoBinary = inspected("standing", "1.27.3")
    right = getattr(binary.layout, field)
    at = (wrong or 0) if field.startswith("sched") else right + (wrong or 0)
    assert at != right
    tables = looked(kernel, binary, SWITCHES, TWO_PS, **{field: at})
    assert STANDING not in states(tables["waiting"])


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("p_status", 4), ("p_status", 8), ("p_m", 8), ("p_m", -8), ("m_procid", 8), ("m_procid", 16)],
)
def test_a_wrong_offset_gives_other_states(kernel: Programs, field: str, wrong: int) -> None:
    binary = inspected("standing", "1.27.3")
    at = getattr(binary.layout, field) + wrong
    tables = looked(kernel, binary, SWITCHES, TWO_PS, **{field: at})
    rows = tables["pstate"]
    holders = set(rows.loc[rows["status"] == "running", "tid"].dropna())
    right = {"idle", "running"} == set(rows["status"]) - {"gcstop"} and holders
    assert not right or not holders <= set(tables["task"]["tid"])


@pytest.mark.parametrize("version", ["1.19.8", "1.27.3"])
def test_a_stopped_world_is_seen(version: str, kernel: Programs) -> None:
    """Whoever stops the world waits for a loop, and looks at it again and again (100 µs)."""
    binary = inspected("stopped", version)
    assert set(looked(kernel, binary, "20", TWO_PS)["waiting"]["gcwaiting"]) == {0, 1}
    for wrong in (32, -8):
        at = binary.layout.sched_gcwaiting + wrong
        rows = looked(kernel, binary, "20", TWO_PS, sched_gcwaiting=at)["waiting"]
        assert set(rows["gcwaiting"]) != {0, 1}


@pytest.fixture(scope="module")
def kernel_of_all_calls() -> Iterator[Programs]:
    """Tells the calls that do not block, too."""
    programs = Programs(16 << 20, defines={"DETAIL_FULL": 1} | probe_defines("none"))
    yield programs
    programs.close()


@pytest.mark.parametrize("version", ["1.19.8", "1.24.11", "1.25.5"])
def test_a_p_in_a_call_is_told_with_the_thread_whose_call_it_is(
    version: str, kernel_of_all_calls: Programs
) -> None:
    """To Go 1.25 such a P names no M, and between two looks it may pass through several calls."""
    binary = inspected("passing", version)
    told = 0
    # How many looks find a P in a call depends on who gets a CPU.
    for _ in range(RUNS):
        tables = looked(kernel_of_all_calls, binary, "60", {"GOMAXPROCS": "2"})
        told += named_in_calls(tables)
        if told > TOLD:
            break
    assert told > TOLD


def named_in_calls(tables: dict[str, pd.DataFrame]) -> int:
    """How many states name the thread whose call it is; each must name the right one."""
    blocks, states = (tables[name].sort_values("ts_ns") for name in ("block", "pstate"))
    calls = tables["syscall"].sort_values("enter_ns")
    calls = calls.merge(blocks[["tid", "enter_ns", "p_use"]], how="left", on=["tid", "enter_ns"])
    # In these P is not held until the thread blocks: a thread that is kept off its CPU in its call
    # has nothing to wait for when it goes on, or has lost its P by then.
    short = calls["nr"].isin(CALLS_WITH_P) & (calls["blocks"] == 0)
    calls["unheld"] = short | (calls["p_use"] == "handed_off")
    held = blocks[blocks["p_use"] == "syscall"]
    named = states[(states["status"] == "syscall") & states["tid"].notna()]
    for state in named.itertuples():
        on_p = held[held["p"] == state.p]
        before, after = on_p[on_p["ts_ns"] <= state.ts_ns], on_p[on_p["ts_ns"] > state.ts_ns]
        # Who blocked with it last, or who is in its call and will block.
        if state.tid in {*before["tid"].tail(1), *after["tid"].head(1)}:
            continue
        own = calls[calls["tid"] == state.tid]
        begun, to_come = own[own["enter_ns"] <= state.ts_ns], own[own["enter_ns"] > state.ts_ns]
        # The thread tells the runtime of its call before it makes it, and after it has returned.
        assert any([*begun["unheld"].tail(1), *to_come["unheld"].head(1)]), state
    return len(named)


@pytest.mark.parametrize("version", ["1.24.11", "1.27.3"])
def test_what_one_look_finds_is_in_what_all_ps_hold(version: str, kernel: Programs) -> None:
    """A look reads 8 of 24 Ps; the others' queues are of the look before, or of that before it."""
    waiting = looked(kernel, inspected("bursts", version), "60", {"GOMAXPROCS": "24"})["waiting"]
    assert set(waiting["gomaxprocs"]) == {24}
    assert waiting["runq_least"].max() > 50
    assert (waiting["runq_least"] <= waiting["runq"]).all()
