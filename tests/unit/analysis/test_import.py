"""What other tools wrote, as traces whose rows and episodes were computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from analysis import load
from analysis.formats.from_go import go_tables
from analysis.formats.from_perf import import_perf
from pretake.cli import group
from tests.unit.analysis.scene import only
from tracer.errors import PretakeError
from tracer.trace.made_trace import write_trace

GO = """\
M=1 P=0 G=-1 StateTransition Time=1000 GoID=7 Undetermined->Running Reason=""
M=1 P=0 G=7 StateTransition Time=1100 GoID=8 Waiting->Runnable Reason=""
M=1 P=0 G=7 StateTransition Time=2000 GoID=7 Running->Syscall Reason=""
Stack=
\truntime.entersyscall @ 0x46be03
M=2 P=-1 G=-1 StateTransition Time=42000 ProcID=0 Running->Idle Reason=""
M=3 P=-1 G=-1 StateTransition Time=45000 ProcID=0 Idle->Running Reason=""
M=3 P=0 G=-1 StateTransition Time=46000 GoID=8 Runnable->Running Reason=""
M=1 P=-1 G=7 StateTransition Time=90000 GoID=7 Syscall->Runnable Reason=""
M=3 P=0 G=8 StateTransition Time=95000 GoID=8 Running->Runnable Reason="preempted"
M=3 P=0 G=-1 StateTransition Time=96000 GoID=7 Runnable->Running Reason=""
M=3 P=0 G=7 StateTransition Time=97000 GoID=7 Running->Syscall Reason=""
M=3 P=0 G=7 StateTransition Time=98000 GoID=7 Syscall->Running Reason=""
M=3 P=0 G=7 StateTransition Time=99000 ProcID=0 Running->Idle Reason=""
"""


def test_a_go_trace_tells_of_the_call_that_lost_its_p(tmp_path: Path) -> None:
    """7 enters at 2 µs while 8 is runnable; P is stolen at 42 and runs 8 at 46 µs."""
    tables, begin, end = go_tables(GO)
    assert (begin, end) == (1000, 99_000)
    trace = load(write_trace(tmp_path / "go.pretake", tables, {"target": {"runtime": "go"}}).path)
    found = only(trace.episodes())
    assert (found["tid"], found["goid"], found["p"]) == (1, 7, 0)
    assert (found["enter_ns"], found["block_ns"], found["exit_ns"]) == (2_000, 2_000, 90_000)
    assert (found["hold_ns"], found["retake_ns"]) == (40_000, 44_000)
    assert (found["outcome"], found["reason"]) == ("retaken", None)
    assert (found["taker_tid"], found["runner_tid"]) == (2, 3)
    # One goroutine was runnable, no P idle and none without a goroutine.
    assert (found["runq"], found["global_runq"], found["npidle"]) == (0, 1, 0)
    assert (found["nmspinning"], found["harm_ns"], found["class"]) == (0, 40_000, "harmful")
    runtime = trace.frame("runtime")
    assert runtime["kind"].tolist() == [
        *("retake", "acquirep", "run", "exit_slow", "preempted", "pidle")
    ]
    # The second call kept its P: a row, and no episode.
    assert trace.frame("syscall")["enter_ns"].tolist() == [2_000, 97_000]


PERF = """\
# a comment
          server  100/101  [000]  7.000001000: sched:sched_waking: comm=worker x pid=102 prio=120 \
target_cpu=001
          server  100/101  [000]  7.000002000: sched:sched_wakeup: comm=worker x pid=102 prio=120 \
target_cpu=001
         swapper    0/0    [001]  7.000005000: sched:sched_switch: prev_comm=swapper/1 prev_pid=0 \
prev_prio=120 prev_state=R ==> next_comm=worker x next_pid=102 next_prio=120
          server  100/101  [000]  7.000006000: sched:sched_stat_runtime: comm=server pid=101
       worker x  100/102 [001]  7.000009000: sched:sched_switch: prev_comm=worker x prev_pid=102 \
prev_prio=120 prev_state=S ==> next_comm=swapper/1 next_pid=0 next_prio=120
          server  100/101  [000]  7.000010000: sched:sched_process_fork: comm=server pid=101 \
child_comm=server child_pid=103
          server  100/101  [000]  7.000011000: sched:sched_switch: prev_comm=server prev_pid=101 \
prev_prio=120 prev_state=X ==> next_comm=server next_pid=103 next_prio=120
"""


def test_perf_script_tells_switches_wakeups_and_threads(tmp_path: Path) -> None:
    text = tmp_path / "perf.txt"
    text.write_text(PERF)
    trace = import_perf(text, tmp_path / "perf.pretake")
    switches = trace.frame("sched_switch")
    us = ((switches["ts_ns"] - 7_000_000_000) // 1_000).tolist()
    assert us == [5, 9, 11]
    assert switches["prev_tid"].tolist() == [0, 102, 101]
    assert switches["next_tid"].tolist() == [102, 0, 103]
    assert switches["prev_state"].tolist() == ["preempted", "blocked", "dead"]
    assert switches["cpu"].tolist() == [1, 1, 0]
    # sched_wakeup says again what sched_waking said.
    wakeup = only(trace.frame("sched_wakeup"))
    assert (wakeup["tid"], wakeup["waker_tid"], wakeup["target_cpu"]) == (102, 101, 1)
    tasks = trace.frame("task").sort_values("tid")
    assert tasks["tid"].tolist() == [101, 102, 103]
    assert tasks["pid"].tolist() == [100, 100, 103]
    assert tasks["comm"].tolist() == ["server", "worker x", "server"]
    assert (trace.manifest.begin_ns, trace.manifest.end_ns) == (7_000_001_000, 7_000_011_000)
    assert trace.manifest.clock == "perf"
    assert load(trace.path).summary()["episodes"] == 0


def test_default_text_of_perf_script_is_read_too(tmp_path: Path) -> None:
    """Without pid in the text a thread stands for itself; times may be in microseconds."""
    text = tmp_path / "perf.txt"
    text.write_text(PERF.replace("100/", "").replace("0/0 ", "0 ").replace("000: ", ": "))
    trace = import_perf(text, tmp_path / "perf.pretake")
    assert len(trace.frame("sched_switch")) == 3
    assert set(trace.frame("task")["pid"]) == {101, 102, 103}


def test_what_tells_nothing_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    text, out = tmp_path / "notes.txt", tmp_path / "out.pretake"
    text.write_text("nothing of the kind\n")
    arguments = ["import", str(text), "-o", str(out)]
    for path in (text, tmp_path / "absent"):
        done = CliRunner().invoke(group, ["import", str(path), "-o", str(out)])
        assert isinstance(done.exception, PretakeError)
        assert list(tmp_path.iterdir()) == [text]
    text.write_text(PERF)
    assert CliRunner().invoke(group, arguments).exception is None
    again = CliRunner().invoke(group, arguments)
    assert isinstance(again.exception, PretakeError)
    assert CliRunner().invoke(group, [*arguments, "--force"]).exception is None
    assert load(out).summary()["events"] == 7


def test_a_damaged_go_trace_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "go.trace"
    damaged.write_bytes(b"go 1.26 trace\0\0\0" + bytes(50))
    done = CliRunner().invoke(group, ["import", str(damaged), "-o", str(tmp_path / "out")])
    with pytest.raises(PretakeError):
        raise done.exception or AssertionError
    assert not (tmp_path / "out").exists()
