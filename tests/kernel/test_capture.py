"""Captures of known programs, counted exactly."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.kernel.started import assert_all_accounted_for, python, wait_for_file
from tests.kernel.watched import Watched, wait_in_call
from tracer.capture.options import CALLS, CaptureOptions, Progress
from tracer.capture.record import record
from tracer.errors import PretakeError
from tracer.trace.reader import Trace

NR_READ, NR_GETPPID = 0, 110


def capture(command: list[str], path: Path, **options: object) -> Trace:
    chosen = CaptureOptions(runtime="none", **options)  # type: ignore[arg-type]
    return Trace(record(command, output=path / "x.pretake", options=chosen))


def within(frame: pd.DataFrame, column: str, result: dict[str, int]) -> pd.DataFrame:
    return frame[frame[column].between(result["begin_ns"], result["end_ns"])]


@pytest.mark.parametrize("how", CALLS)
def test_a_prime_number_of_blocking_reads_is_counted_exactly(how: str, tmp_path: Path) -> None:
    trace = capture(python("prime_reads", 23, tmp_path / "result"), tmp_path, calls=how)
    result = json.loads((tmp_path / "result").read_text())
    calls = within(trace.frame("syscall"), "exit_ns", result)
    reads = calls[(calls["tid"] == result["tid"]) & (calls["nr"] == NR_READ)]
    assert result["voluntary"] == 23
    assert len(reads) == 23
    assert reads["blocks"].tolist() == [1] * 23
    if how == "exact":
        assert reads["ret"].tolist() == [1] * 23
        assert reads[["enter_since_ns", "exit_until_ns"]].isna().all(axis=None)
        assert trace.manifest.capture.results_unknown == 0
    else:
        assert reads["ret"].isna().all()
        assert (reads["enter_since_ns"] < reads["enter_ns"]).all()
        assert (reads["exit_until_ns"] > reads["exit_ns"]).all()
        unknown = trace.frame("syscall")["ret"].isna().sum()
        assert trace.manifest.capture.results_unknown == unknown >= 23
    assert reads["arg0"].tolist() == [result["fd"]] * 23
    length = reads["exit_ns"] - reads["enter_ns"]
    assert ((reads["blocked_ns"] > 0) & (reads["blocked_ns"] < length)).all()
    assert trace.manifest.exit_status == 0
    assert trace.manifest.error is None
    assert_all_accounted_for(trace)


def test_switches_agree_with_the_kernels_own_count(tmp_path: Path) -> None:
    trace = capture(python("prime_reads", 101, tmp_path / "result"), tmp_path)
    result = json.loads((tmp_path / "result").read_text())
    switches = trace.frame("sched_switch")
    left = within(switches[switches["prev_tid"] == result["tid"]], "ts_ns", result)
    counts = left["prev_state"].value_counts()
    assert counts["blocked"] == result["voluntary"] == 101
    # A virtual machine's kernel may hide its agent's threads: a switch to one of them is in no
    # tracer's record (perf has none either), and yet counted by the kernel as forced.
    assert counts["preempted"] <= result["forced"]
    woken = trace.frame("sched_wakeup")
    woken = within(woken[woken["tid"] == result["tid"]], "ts_ns", result)
    assert len(woken) >= 101


def test_calls_that_do_not_block_are_captured_only_on_request(tmp_path: Path) -> None:
    trace = capture(python("calls", 1009, 0), tmp_path)
    assert NR_GETPPID not in set(trace.frame("syscall")["nr"])
    trace = capture(python("calls", 1009, 0), tmp_path, detail="full", force=True)
    calls = trace.frame("syscall")
    assert (calls["nr"] == NR_GETPPID).sum() == 1009
    assert (calls.loc[calls["nr"] == NR_GETPPID, "ret"] == os.getpid()).all()


def test_a_million_calls_as_fast_as_they_can_be_made_are_stored_or_counted(
    tmp_path: Path,
) -> None:
    trace = capture(python("calls", 1_000_003, 0), tmp_path, detail="full")
    calls = trace.frame("syscall", ["nr", "exit_ns"])
    calls = calls[calls["nr"] == NR_GETPPID]
    # How many find no room hangs on when the tracer gets a CPU: bench/drain.py asks for none.
    lost = trace.manifest.lost["syscall"]
    assert 1_000_003 - lost <= len(calls) <= 1_000_003
    assert len(calls) > 0
    assert trace.manifest.capture.bytes_per_event is not None
    assert trace.manifest.capture.bytes_per_event <= 5
    assert_all_accounted_for(trace)


def test_what_an_overflow_loses_is_counted_to_the_record(tmp_path: Path) -> None:
    trace = capture(python("calls", 200_003, 0), tmp_path, detail="full", buffer_bytes=1)
    manifest = trace.manifest
    assert manifest.lost["syscall"] > 100_000
    assert manifest.sent["syscall"] >= 200_003
    assert_all_accounted_for(trace)
    loss = trace.frame("loss")
    told = loss.groupby("table", observed=True)["lost"].sum().to_dict()
    assert told == {table: lost for table, lost in manifest.lost.items() if lost}
    assert (loss["begin_ns"] <= loss["end_ns"]).all()
    assert manifest.begin_ns is not None
    assert (loss["begin_ns"] >= manifest.begin_ns).all()


def test_threads_and_children_are_followed(tmp_path: Path) -> None:
    trace = capture(python("family", 5, 3), tmp_path)
    tasks, calls = trace.frame("task"), trace.frame("syscall")
    pid = trace.manifest.pid
    born = tasks[tasks["kind"] == "fork"]
    assert (born["pid"] == pid).sum() == 5
    assert (born["pid"] != pid).sum() == 3
    assert (born["parent_tid"] == pid).all()
    named = tasks[(tasks["kind"] == "name") & tasks["comm"].str.startswith("reader-")]
    assert sorted(named["comm"]) == [f"reader-{n}" for n in range(5)]
    ended = tasks[tasks["kind"] == "exit"]
    assert sorted(ended["tid"]) == sorted([pid, *born["tid"]])
    reads = calls[(calls["nr"] == NR_READ) & (calls["blocks"] == 1)]
    assert set(born["tid"]) <= set(reads["tid"])
    # A stranger that dies is told, too, where a target comes after it on its CPU. The capture ends
    # with the process: its own last switch may come later, if it loses its CPU on the way there.
    dead = trace.frame("sched_switch").query("prev_state == 'dead'")["prev_tid"]
    assert dead[dead.isin([pid, *born["tid"]])].is_unique
    assert set(born["tid"]) <= set(dead)


def test_a_program_that_another_thread_execs_is_followed(tmp_path: Path) -> None:
    trace = capture(python("exec_from_thread"), tmp_path, detail="full")
    pid = trace.manifest.pid
    tasks = trace.frame("task")
    assert tasks.loc[tasks["kind"] == "exec", "tid"].tolist() == [pid, pid]
    calls = trace.frame("syscall")
    assert calls.loc[calls["nr"] == NR_GETPPID, "tid"].tolist() == [pid]
    assert (tasks[tasks["tid"] == pid]["kind"].iloc[-1]) == "exit"


@pytest.mark.parametrize("how", CALLS)
def test_signals_are_told_from_sender_to_delivery(how: str, tmp_path: Path) -> None:
    trace = capture(python("signals", 23), tmp_path, calls=how)
    signals, pid = trace.frame("signal"), trace.manifest.pid
    assert (signals["signo"] == signal.SIGURG).all()
    sent = signals[signals["kind"] == "tgkill"]
    # One that fails sends nothing: it is seen by its return only.
    refused = [3] if how == "exact" else []  # ESRCH
    assert sent["errno"].tolist() == [0] * 23 + refused
    assert sent["tid"].tolist() == [pid] * 23 + [2**22 + 1] * len(refused)
    made = signals[signals["kind"] == "generate"]
    assert made["sender_tid"].tolist() == [pid] * 23
    delivered = signals[signals["kind"] == "deliver"]
    assert delivered["tid"].tolist() == [pid] * 23
    assert (delivered["pc"] > 0).all()
    order = pd.DataFrame(
        {
            "sent": sent["ts_ns"].tolist()[:23],
            "made": made["ts_ns"].tolist(),
            "delivered": delivered["ts_ns"].tolist(),
        }
    )
    assert (order["sent"] <= order["made"]).all()
    assert (order["made"] < order["delivered"]).all()
    assert (order["sent"] < order["made"]).all() == (how == "exact")


class Gated:
    """A running program whose threads are blocked until its input ends."""

    def __init__(self, threads: int) -> None:
        self.process = subprocess.Popen(
            python("gated", threads), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin = self.process.stdin
        assert self.process.stdout.readline() == b"ready\n"
        wait_in_call(self.process.pid, NR_READ)

    def __enter__(self) -> Gated:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdin.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait()


def test_a_running_process_is_attached_to_and_its_end_ends_the_capture(tmp_path: Path) -> None:
    with Gated(4) as gated:
        # Told first when the process is a target: only then may it end.
        path = record(
            pid=gated.process.pid,
            output=tmp_path / "x.pretake",
            options=CaptureOptions(runtime="none"),
            progress=lambda _: gated.stdin.close(),
        )
    trace = Trace(path)
    tasks = trace.frame("task")
    present = tasks[tasks["kind"] == "present"]
    assert len(present) == 5
    assert (present["pid"] == gated.process.pid).all()
    assert sorted(tasks.loc[tasks["kind"] == "exit", "tid"]) == sorted(present["tid"])
    # Each was in its read when the capture began: it blocked, and nobody saw since when.
    calls = trace.frame("syscall")
    reads = calls[(calls["nr"] == NR_READ) & calls["enter_ns"].isna()]
    assert sorted(reads["tid"]) == sorted(present["tid"])
    assert reads["blocked_ns"].isna().all()
    assert trace.manifest.complete
    assert trace.manifest.exit_status is None
    assert_all_accounted_for(trace)


def test_detaching_leaves_a_process_running(tmp_path: Path) -> None:
    with Gated(1) as gated:
        options = CaptureOptions(runtime="none", seconds=0.1)
        path = record(pid=gated.process.pid, output=tmp_path / "x.pretake", options=options)
        assert gated.process.poll() is None
    assert Trace(path).manifest.complete
    assert gated.process.returncode == 0


def test_time_ends_a_capture_and_the_command_with_it(tmp_path: Path) -> None:
    trace = capture(["sleep", "1000"], tmp_path, seconds=0.1)
    assert trace.manifest.exit_status == -signal.SIGTERM
    assert trace.manifest.complete
    assert trace.manifest.capture.wall_s is not None
    assert trace.manifest.capture.wall_s < 100


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        if len(told) >= 3 and progress.events > told[0].events:
            os.kill(os.getpid(), signal.SIGINT)

    options = CaptureOptions(runtime="none", detail="full")
    command = python("calls", 10**9, 300_000)
    path = record(command, output=tmp_path / "x.pretake", options=options, progress=tell)
    for column in ("elapsed_s", "events", "bytes"):
        values = [getattr(progress, column) for progress in told]
        assert values == sorted(values)
    assert told[-1].events <= sum(Trace(path).manifest.events.values())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["/no/such/program"], "there is no program /no/such/program"),
        (["no-such-program-on-path"], "there is no program no-such-program-on-path"),
        (["/etc/passwd"], "/etc/passwd is not executable"),
        (["/etc"], "/etc is a folder"),
        ([], "there is no command to run"),
    ],
)
def test_a_command_that_cannot_be_run(tmp_path: Path, command: list[str], message: str) -> None:
    with pytest.raises(PretakeError, match=message):
        capture(command, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_program_whose_interpreter_is_missing(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(PretakeError, match="cannot be run"):
        capture([str(script)], tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["script"]


def test_a_process_that_is_not_there(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid in (ended.pid, 2**30, 0, -1):
        with pytest.raises(PretakeError, match=f"there is no process {pid}"):
            record(pid=pid, output=tmp_path / "x.pretake")
    with pytest.raises(PretakeError, match="pretake cannot trace itself"):
        record(pid=os.getpid(), output=tmp_path / "x.pretake")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x.pretake").mkdir()
    with pytest.raises(PretakeError, match="exists"):
        capture(["true"], tmp_path)
    assert list((tmp_path / "x.pretake").iterdir()) == []


TRACER = """
import sys
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
record(
    sys.argv[2:],
    output=sys.argv[1],
    options=CaptureOptions(runtime="none", detail="full", part_seconds=0.1),
)
"""


def start_tracer(path: Path, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", TRACER, str(path), *command])


def test_ctrl_c_ends_a_capture_in_order(tmp_path: Path) -> None:
    path = tmp_path / "x.pretake"
    tracer = start_tracer(path, *python("calls", 10**9, 10_000))
    wait_for_file(path / "syscall" / "part-00000.parquet", tracer)
    tracer.send_signal(signal.SIGINT)
    assert tracer.wait(timeout=120) == 0
    trace = Trace(path)
    assert trace.manifest.complete
    assert trace.manifest.exit_status == -signal.SIGTERM
    assert_all_accounted_for(trace)


def test_a_killed_tracer_leaves_whole_parts_and_no_probe(tmp_path: Path) -> None:
    path = tmp_path / "x.pretake"
    tracer = start_tracer(path, *python("calls", 10**9, 10_000))
    wait_for_file(path / "syscall" / "part-00003.parquet", tracer)
    programs = bpf_programs_of(tracer.pid)
    assert len(programs) >= 11
    assert all(bpf_program_exists(number) for number in programs)
    command = Trace(path).manifest.pid
    # However long the program took to begin.
    while (Trace(path).frame("syscall", ["nr"])["nr"] == NR_GETPPID).sum() <= 1000:
        assert tracer.poll() is None
    tracer.kill()
    tracer.wait()
    assert command is not None
    os.kill(command, signal.SIGKILL)
    trace = Trace(path)
    assert not trace.manifest.complete
    assert (trace.frame("syscall")["nr"] == NR_GETPPID).sum() > 1000
    files = {entry.name for entry in path.rglob("*") if entry.is_file()}
    assert all(name == "manifest.json" or name.startswith("part-") for name in files)
    # The kernel lets go of them after a grace period.
    deadline = time.monotonic() + 120
    while any(bpf_program_exists(number) for number in programs):
        assert time.monotonic() < deadline


def bpf_programs_of(pid: int) -> list[int]:
    """Ids of the BPF programs that a process holds, from /proc/PID/fdinfo."""
    numbers = []
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        text = ""
        # It may close another file while we look.
        with contextlib.suppress(FileNotFoundError):
            text = info.read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if "prog_id" in fields and "prog_jited" in fields:
            numbers.append(int(fields["prog_id"]))
    return numbers


def bpf_program_exists(number: int) -> bool:
    import ctypes

    nr_bpf, prog_get_fd_by_id = 321, 13
    attributes = (ctypes.c_uint32 * 32)(number)
    fd = ctypes.CDLL(None).syscall(nr_bpf, prog_get_fd_by_id, attributes, 128)
    if fd < 0:
        return False
    os.close(fd)
    return True


def test_nothing_is_told_of_what_comes_after_the_end() -> None:
    """To take the probes away takes a tenth of a second, in which threads may come and die."""
    with Watched(python("on_request", 0)) as watched:
        assert watched.hear() == "ready"
        watched.say("calls 50")
        watched.hear()
        # It does nothing more, so that nothing is told if the end is set too late.
        wait_in_call(watched.pid, NR_READ)
        end_ns = time.monotonic_ns() + 10**6
        watched.programs.followed.end_at(end_ns)
        while time.monotonic_ns() <= end_ns:
            pass
        watched.say("calls 50")
        watched.hear()
        watched.say("signals 5")
        watched.hear()
    last_ns = {
        name: int(rows["exit_ns" if name == "syscall" else "ts_ns"].max())
        for name, rows in watched.tables.items()
        if len(rows)
    }
    assert {"task", "syscall", "sched_switch"} <= set(last_ns)
    assert max(last_ns.values()) <= end_ns
    calls = watched.tables["syscall"]
    assert (calls["nr"] == NR_GETPPID).sum() == 50
    # Its end was told neither.
    assert "exit" not in set(watched.tables["task"]["kind"])
