"""Preemptions of the reference runtime, captured, against its own counters."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.answers.preemptions import preemptions
from reference_runtime import _native as native
from reference_runtime.current import COMPILED
from tests.kernel.started import PRETAKE
from tracer.trace.reader import Trace

pytestmark = [
    pytest.mark.skipif(not COMPILED, reason="the interpreted runtime has nothing to probe"),
]


NOSPLIT = """
import json, threading, time
from pathlib import Path
from reference_runtime import _native
from reference_runtime.goroutines import current_host, endless_loop

times = []

def end():
    while not times:
        time.sleep(0.001)
    before = _native.count_outcomes()[2]
    while _native.count_outcomes()[2] < before + 2:
        time.sleep(0.001)
    times.append(time.monotonic_ns())
    host.end_loops(True)

# Before the run: a goroutine that waits for a thread to begin may be stopped there.
threading.Thread(target=end).start()

async def main():
    global host
    host = current_host()
    # One line: between the clock and the loop there is none at which a signal could stop it.
    times.append(time.monotonic_ns()); await endless_loop(True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(times))
"""
"""A loop at no safe point, which another thread ends when it has refused two signals; and a
span of time in which the goroutine was nowhere else."""


def capture(path: Path, workload: str, **parameters: object) -> tuple[Trace, dict[str, Any]]:
    """A trace of a workload, and what the runtime counted itself."""
    trace = path / "x.pretake"
    options: list[object] = []
    for name, value in parameters.items():
        if name in ("procs", "rounds", "preempt"):
            options += [f"--{name}", value]
        else:
            options += ["--set", f"{name}={value}"]
    run = [*PRETAKE, "run", workload, *map(str, options)]
    command = [*PRETAKE, "record", "-q", "-o", str(trace), "--", *run]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = Trace(trace)
    assert sum(read.manifest.lost.values()) == 0
    assert read.manifest.workload is not None
    counters = json.loads(json.dumps(read.manifest.workload["runtime"]))
    assert isinstance(counters, dict)
    return read, counters


def kinds(trace: Trace) -> Counter[tuple[str, str | None]]:
    runtime = trace.frame("runtime")
    chosen = runtime[runtime["kind"].isin(["preempt_request", "preempted", "preempt_refused"])]
    return Counter(zip(chosen["kind"].astype(str), chosen["reason"].astype(str), strict=True))


@pytest.mark.parametrize("procs", [1, 2])
def test_each_request_is_followed_to_its_end(tmp_path: Path, procs: int) -> None:
    trace, told = capture(tmp_path, "cpu", procs=procs, loops=3, rounds=7, limit_s=20)
    seen = kinds(trace)
    assert seen["preempt_request", "time_slice"] == told["preempt_requests"] >= 1
    assert seen["preempted", "async"] == told["preempted_async"] >= 1
    assert seen["preempt_refused", "unsafe_point"] == told["refused_unsafe_point"]
    assert seen["preempt_refused", "not_wanted"] == told["refused_not_wanted"]

    signals = trace.frame("signal")
    sent = signals[signals["kind"] == "tgkill"]
    delivered = signals[signals["kind"] == "deliver"]
    assert len(sent) == told["preempt_requests"]
    assert len(delivered) == sum(
        count for (kind, reason), count in seen.items() if reason != "cooperative"
    ) - len(sent)

    table = preemptions(trace)
    stopped = table[table["how"] == "async"]
    ends = trace.frame("runtime").query("kind == 'preempted' and reason == 'async'")
    assert sorted(stopped["ended_ns"]) == sorted(ends["ts_ns"])
    assert len(stopped) == told["preempted_async"]
    order = stopped[["asked_ns", "sent_ns", "delivered_ns", "ended_ns"]]
    assert order.notna().all(axis=None)
    assert (order.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
    # A loop calls nothing. The main goroutine, the first, is Python code, and may be in a call.
    assert stopped.loc[stopped["goid"] != 1, "interrupted_nr"].isna().all()


def test_every_stop_was_inside_the_native_kernels(tmp_path: Path) -> None:
    trace, told = capture(tmp_path, "cpu", procs=1, loops=2, rounds=5, limit_s=20)
    # The main goroutine, the first, is Python code, and may be stopped at a line of it.
    stopped = preemptions(trace).query("how == 'async' and goid != 1")
    # Where the library is loaded differs from run to run; the table's length does not.
    ((begin, end),) = native.safe_ranges()
    assert 0 < len(stopped) <= told["preempted_async"]
    assert stopped["pc"].max() - stopped["pc"].min() < end - begin
    assert set(stopped["pc"] % 4096) <= {pc % 4096 for pc in range(begin, end)}


def test_a_nosplit_loop_refuses_every_signal(tmp_path: Path) -> None:
    program = tmp_path / "nosplit.py"
    program.write_text(NOSPLIT)
    trace, told = capture(tmp_path, f"{program}:main", procs=1)
    begin_ns, end_ns = json.loads(program.with_suffix(".json").read_text())
    seen = kinds(trace)
    assert seen["preempt_refused", "unsafe_point"] == told["refused_unsafe_point"]
    assert seen["preempted", "async"] == told["preempted_async"]
    table = preemptions(trace)
    assert len(table) == told["preempt_requests"]
    inside = table[table["delivered_ns"].between(begin_ns, end_ns)]
    assert len(inside) >= 2
    # What comes before the loop has been entered is refused when the next one comes.
    refused = inside[inside["ended_ns"] < end_ns]
    assert len(refused) >= 1
    assert (refused["how"] == "unsafe_point").all()
    assert (refused["outcome"] == "refused").all()
    assert refused["latency_ns"].isna().all()
    # The goroutine may be stopped at the lines of its Python code, before the loop and after it.
    stopped = table[table["how"] == "async"]
    assert len(stopped) == told["preempted_async"]
    assert not stopped["ended_ns"].between(begin_ns, end_ns).any()


def test_without_signals_the_loop_stops_at_its_checks(tmp_path: Path) -> None:
    trace, told = capture(tmp_path, "cpu", procs=1, kind="checks", rounds=3, preempt="cooperative")
    seen = kinds(trace)
    assert seen["preempted", "cooperative"] == told["preempted_cooperative"] >= 1
    assert seen["preempt_request", "time_slice"] == told["preempt_requests"]
    assert trace.arrow("signal").num_rows == 0


def test_the_world_stops_and_goes_on_as_often_as_the_collector_asks(tmp_path: Path) -> None:
    trace, told = capture(tmp_path, "stw", procs=2, loops=2, rounds=11, limit_s=20)
    runtime: pd.DataFrame = trace.frame("runtime")
    world = runtime[runtime["kind"].astype(str).str.startswith("stw_")].sort_values("ts_ns")
    assert world["kind"].tolist() == ["stw_start", "stw_stopped", "stw_end"] * 11
    assert set(world["reason"]) == {"gc"}
    assert kinds(trace)["preempted", "async"] == told["preempted_async"]
