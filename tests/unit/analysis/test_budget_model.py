"""The pass against a model that knows every P's state at each instant, and against nonsense."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.ptime.budget import Pass, run_pass
from analysis.ptime.engine.beliefs import MAX_P
from analysis.ptime.engine.state import STATES
from tests.unit.analysis.model_of_ps import GOING, US, Model
from tests.unit.analysis.scene import Scene
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES


def spans_of(found: Pass) -> dict[int, list[tuple[int, int, str]]]:
    """Begin, end and state of each P's spans, neighbours in one state joined."""
    spans: dict[int, list[tuple[int, int, str]]] = {}
    rows = found.spans
    for p, state, begin, end in sorted(
        zip(*(rows[n].tolist() for n in ("p", "state", "begin_ns", "end_ns")), strict=True),
        key=lambda row: (row[0], row[2]),
    ):
        own = spans.setdefault(p, [])
        if own and own[-1][2] == STATES[state] and own[-1][1] == begin:
            own[-1] = (own[-1][0], end, STATES[state])
        else:
            own.append((begin, end, STATES[state]))
    return spans


def truth_of(model: Model) -> dict[int, list[tuple[int, int, str]]]:
    spans: dict[int, list[tuple[int, int, str]]] = {}
    for p in range(model.procs):
        moments = [(0, "unknown"), *((at, s) for at, number, s in model.truth if number == p)]
        ends = [*(at for at, _ in moments[1:]), model.now]
        own: list[tuple[int, int, str]] = []
        for (begin, state), end in zip(moments, ends, strict=True):
            if begin == end:
                continue
            if own and own[-1][2] == state:
                own[-1] = (own[-1][0], end * US, state)
            else:
                own.append((begin * US, end * US, state))
        spans[p] = own
    return spans


def made(model: Model, **options: object) -> tuple[Trace, Pass]:
    with tempfile.TemporaryDirectory() as folder:
        trace = model.write(Path(folder), "model.pretake")
        return trace, run_pass(trace, spans=True, **options)


@given(st.integers(1, 4), st.integers(0, 120), st.integers(0, 1 << 30))
@settings(max_examples=30)
def test_every_span_of_every_p(procs: int, steps: int, seed: int) -> None:
    model = Model(procs, Random(seed))
    model.run(steps)
    _, found = made(model)
    assert spans_of(found) == truth_of(model)
    (process,) = found.processes
    states, lost, wait, stalls = model.sums()
    assert process.p_ns == procs * model.now * US == sum(process.states.values())
    assert {s: ns for s, ns in process.states.items() if ns} == {
        s: ns for s, ns in states.items() if ns
    }
    for state, ns in lost.items():
        assert process.lost_least[state] <= ns + 1
        assert ns - 1 <= process.lost_most[state]
    for kind in ("some", "full"):
        for cause in ("any", *GOING):
            true_ns = stalls.get((kind, cause), 0)
            assert process.stalls[f"{kind}_least_{cause}_ns"] <= true_ns
            assert true_ns <= process.stalls[f"{kind}_most_{cause}_ns"]
    assert process.wait_least_ns <= wait
    # Before the first look nobody knows.
    at_first = max((waits for _, waits in model.waits), default=0)
    assert wait <= process.wait_most_ns + at_first * process.wait_unknown_ns


@given(st.integers(1, 3), st.integers(1, 60), st.integers(0, 1 << 30), st.integers(1, 40))
@settings(max_examples=12)
def test_where_the_cuts_lie_changes_nothing(procs: int, steps: int, seed: int, rows: int) -> None:
    model = Model(procs, Random(seed))
    model.run(steps)
    _, whole = made(model)
    _, cut = made(model, window_rows=rows)
    assert cut.processes == whole.processes
    for name in ("spans", "holds", "latencies", "stops", "waited"):
        one, other = getattr(whole, name), getattr(cut, name)
        assert {c: v.tolist() for c, v in one.items()} == {c: v.tolist() for c, v in other.items()}


@given(st.integers(1, 3), st.integers(20, 120), st.integers(0, 1 << 30), st.data())
@settings(max_examples=20)
def test_what_losses_hide_is_unknown_and_nothing_is_wrong(
    procs: int, steps: int, seed: int, data: st.DataObject
) -> None:
    """Rows of one table are taken out of a span, and the span is told as lost."""
    model = Model(procs, Random(seed))
    model.run(steps)
    begin = data.draw(st.integers(20, max(21, model.now - 1)))
    end = data.draw(st.integers(begin, model.now))
    table = data.draw(st.sampled_from(["block", "runtime", "sched_switch", "syscall"]))
    time = "exit_ns" if table == "syscall" else "ts_ns"
    rows = model.scene.rows
    rows[table] = [row for row in rows[table] if not begin * US <= row[time] <= end * US]
    model.scene.loss(begin, end, table)
    _, found = made(model)
    (process,) = found.processes
    assert process.p_ns == procs * model.now * US == sum(process.states.values())
    truth = truth_of(model)
    for p, spans in spans_of(found).items():
        for span_begin, span_end, state in spans:
            for true_begin, true_end, true in truth[p]:
                if state != "unknown" and true_begin < span_end and span_begin < true_end:
                    assert (p, state, span_begin, span_end) == (p, true, span_begin, span_end)


_NUMBERS = st.one_of(st.integers(-2, 8), st.integers(-(1 << 31), (1 << 31) - 1))
_PS = st.one_of(st.integers(-2, 300), st.integers(MAX_P, (1 << 31) - 1), st.just(-(1 << 31)))
"""Numbers of Ps. Those between are as many Ps, one after the other: that takes its time, and is
tried once (:func:`test_as_many_ps_are_counted_as_may_be`)."""
_TIMES = st.one_of(st.integers(0, 3_000), st.integers(0, 5_000_000_000))


@st.composite
def nonsense(draw: st.DrawFn) -> Scene:
    """Rows of every table that are of the right types, and mean nothing."""
    scene = Scene(end_ns=draw(_TIMES))
    for name in ("task", "block", "syscall", "runtime", "pstate", "waiting", "sched_switch",
                 "sched_wakeup", "signal", "loss"):  # fmt: skip
        for _ in range(draw(st.integers(0, 6))):
            row: dict[str, object] = {}
            for column in TABLES[name].columns:
                if column.words:
                    row[column.name] = draw(st.sampled_from(column.words))
                elif column.unit == "ns":
                    row[column.name] = draw(_TIMES)
                elif column.type in ("i16", "i8"):
                    row[column.name] = draw(st.integers(0, 100))
                elif column.name in ("p", "gomaxprocs"):
                    row[column.name] = draw(_PS)
                elif not column.is_text:
                    row[column.name] = draw(_NUMBERS)
                if column.nullable and draw(st.booleans()):
                    row[column.name] = None
            scene.rows[name].append(row)
    return scene


@given(nonsense())
@settings(max_examples=60)
def test_states_add_up_whatever_the_rows_say(scene: Scene) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trace = scene.write(Path(folder))
        found = run_pass(trace, spans=True, bin_ns=1_000_000_000)
    for process in found.processes:
        assert sum(process.states.values()) == process.p_ns
        assert all(ns >= 0 for ns in process.states.values())
        for state, least in process.lost_least.items():
            assert 0 <= least <= process.lost_most[state] <= process.states[state]
        own = found.spans["pid"] == process.pid
        length = found.spans["end_ns"][own] - found.spans["begin_ns"][own]
        assert int(length.sum()) == process.p_ns


@pytest.mark.parametrize(("number", "ps"), [(MAX_P - 1, MAX_P), (MAX_P, 0)])
def test_as_many_ps_are_counted_as_may_be(number: int, ps: int, tmp_path: Path) -> None:
    """One thread has a P of that number for a millisecond; those below it are there, too."""
    scene = Scene(end_ns=1_000 * US)
    scene.task(11, 7)
    scene.switch(0, 0, 11)
    scene.runtime(0, "acquirep", 11, number)
    found = run_pass(scene.write(tmp_path))
    assert sum(process.p_ns for process in found.processes) == ps * 1_000 * US


def test_the_model_itself_does_every_thing() -> None:
    """Else a state that never comes about would never be tested."""
    model = Model(3, Random(1))
    model.run(3_000)
    assert {state for *_, state in model.truth} == {
        *("running", "syscall", "fault", "no_cpu", "stopped", "transit", "idle")
    }
