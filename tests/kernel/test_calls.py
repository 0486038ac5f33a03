"""A system call is told as the program made it, and nothing of another call with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cpus import on_cpu
from tests.kernel.started import Started, python
from tests.kernel.watched import Watched, wait_in_call
from tracer.capture.options import CALLS, CaptureOptions
from tracer.capture.programs import Programs
from tracer.capture.record import record
from tracer.kernel.compiler import TRACEPOINTS
from tracer.trace.reader import Trace

NR_WRITE = 1
NR_READ, NR_POLL, NR_SIGRETURN, NR_EXECVE, NR_GETPPID = 0, 7, 15, 59, 110
NR_RESTART_SYSCALL = 219
EINTR = 4


def calls_of(watched: Watched, *numbers: int) -> pd.DataFrame:
    calls = watched.tables["syscall"]
    chosen = calls[(calls["tid"] == watched.pid) & calls["nr"].isin(numbers)]
    return chosen.sort_values("enter_ns", ignore_index=True)


def assert_parts_are_within(calls: pd.DataFrame) -> None:
    known = calls[calls["enter_ns"].notna()]
    assert len(known)
    assert (known["blocked_ns"] <= known["exit_ns"] - known["enter_ns"]).all()
    assert (known.loc[known["blocks"] == 0, "blocked_ns"] == 0).all()


def test_a_new_thread_s_first_call_is_whole_where_nobody_saw_it_come_on_its_cpu(
    tmp_path: Path,
) -> None:
    """As where a thread that tracers are not told of leaves the CPU to it (a hypervisor's)."""
    command, leave_out = python("new_reader", tmp_path / "go"), ("sched_switch",)
    with Watched(command, defines=(), leave_out=leave_out) as watched:
        before_ns, child = map(int, watched.hear().split())
        # It is on its CPU, and stays there unless it is preempted: then this test sees nothing.
        watched.programs.probes.attach(leave_out=set(TRACEPOINTS).difference(leave_out))
        (tmp_path / "go").touch()
        wait_in_call(child, NR_READ)
        watched.say()
    tasks, calls = watched.tables["task"], watched.tables["syscall"]
    born_ns = tasks.loc[(tasks["kind"] == "fork") & (tasks["tid"] == child), "ts_ns"]
    (read,) = calls[(calls["tid"] == child) & (calls["nr"] == NR_READ)].to_dict("records")
    assert read["blocks"] == 1
    assert before_ns < read["enter_since_ns"] < read["enter_ns"] < read["exit_ns"]
    assert read["enter_ns"] > born_ns.item()


def test_a_program_does_not_inherit_the_call_it_was_made_by(tmp_path: Path) -> None:
    # The file has a lease, so that execve blocks until the holder gives it back.
    target = tmp_path / "true"
    shutil.copy("/bin/true", target)
    with Started(
        python("leased", target), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        with Watched(["sh", "-c", f"exec {target}"]) as watched:
            # The shell's own execve may sleep too, on its way to another CPU.
            assert holder.stdout.readline() == b"asked\n"
            wait_in_call(watched.pid, NR_EXECVE)
            holder.stdin.write(b"\n")
            holder.stdin.flush()
    tasks, calls = watched.tables["task"], watched.tables["syscall"]
    first, second = tasks.loc[tasks["kind"] == "exec", "ts_ns"]
    assert_parts_are_within(calls)
    execve = calls[calls["nr"] == NR_EXECVE]
    # It ended with the program that made it.
    assert execve["ret"].tolist() == [0]
    assert (execve["blocks"] >= 1).all()
    assert (execve["blocked_ns"] > 0).all()
    assert execve["enter_ns"].between(first, second).all()
    assert execve["exit_ns"].between(first, second).all()
    assert (calls["enter_ns"] > second).sum() > 10


def test_time_without_a_page_is_no_call_s() -> None:
    with Watched(python("missing_page")) as watched:
        assert int(watched.hear()) == watched.pid
        wait_in_call(watched.pid, -1)
        watched.say()
    calls = calls_of(watched, NR_GETPPID)
    assert len(calls) == 23
    assert calls["blocked_ns"].tolist() == [0] * 23
    assert_parts_are_within(watched.tables["syscall"])


SIGNALS = 3


def break_off(watched: Watched, how: str) -> None:
    """Send signals while it sleeps in a call, and then what it waits for."""
    number = int(watched.hear())
    nr = NR_POLL if how == "stops" and number % 2 else NR_READ
    wait_in_call(watched.pid, nr)
    for _ in range(SIGNALS):
        if how == "stops":
            os.kill(watched.pid, signal.SIGSTOP)
            stat = Path(f"/proc/{watched.pid}/stat")
            while stat.read_text().rpartition(")")[2].split()[0] != "T":
                os.sched_yield()
            os.kill(watched.pid, signal.SIGCONT)
            wait_in_call(watched.pid, NR_RESTART_SYSCALL if nr == NR_POLL else nr)
        else:
            os.kill(watched.pid, signal.SIGUSR1)
            assert watched.hear() == ""
            wait_in_call(watched.pid, nr)
    watched.say()


@pytest.mark.parametrize("detail", [("CALLS_EXACT",), ("DETAIL_FULL",)])
@pytest.mark.parametrize("how", ["restarts", "fails", "stops"])
def test_a_call_that_a_signal_breaks_off(how: str, detail: tuple[str, ...]) -> None:
    rounds = 7
    with Watched(python("broken_calls", how, rounds), detail) as watched:
        for _ in range(rounds):
            break_off(watched, how)
    calls = watched.tables["syscall"]
    assert_parts_are_within(calls)
    assert NR_RESTART_SYSCALL not in set(calls["nr"])
    assert not calls["ret"].between(-516, -512).any()
    reads = calls_of(watched, NR_READ)
    reads = reads[(reads["arg0"] == 0) & (reads["blocks"] > 0)]
    if how == "restarts":
        # Each is one call, which the signals made sleep once more each.
        assert reads["ret"].tolist() == [1] * rounds
        assert (reads["blocks"] == 1 + SIGNALS).all()
    elif how == "fails":
        assert reads["ret"].tolist() == ([-EINTR] * SIGNALS + [1]) * rounds
        assert reads["blocks"].tolist() == [1] * rounds * (SIGNALS + 1)
    else:
        polls = calls_of(watched, NR_POLL)
        polls = polls[polls["blocks"] > 0]
        assert polls["ret"].tolist() == [1] * (rounds // 2)
        assert reads["ret"].tolist() == [1] * len(reads)
        assert len(reads) == rounds - rounds // 2
        for told in (polls, reads):
            assert (told["blocks"] == 1 + SIGNALS).all()
    if how != "stops" and detail == ("DETAIL_FULL",):
        # The handler's own calls lie in the call that goes on, or behind the one that failed.
        returns = calls[calls["nr"] == NR_SIGRETURN]
        assert len(returns) == rounds * SIGNALS
        inside = [
            ((reads["enter_ns"] < at) & (reads["exit_ns"] > at)).any()
            for at in returns["enter_ns"]
        ]
        assert inside == [how == "restarts"] * rounds * SIGNALS


@pytest.mark.parametrize("how", ["restarts", "fails", "stops"])
def test_a_broken_call_by_its_thread_s_switches_alone(how: str) -> None:
    rounds = 7
    with Watched(python("broken_calls", how, rounds), ()) as watched:
        for _ in range(rounds):
            break_off(watched, how)
        broken = watched.programs.followed.shortfalls()["broken_calls"]
    calls = watched.tables["syscall"]
    assert_parts_are_within(calls)
    assert NR_RESTART_SYSCALL not in set(calls["nr"])
    reads = calls_of(watched, NR_READ)
    reads = reads[reads["arg0"] == 0]
    parts = reads["ret"].astype(object).where(reads["ret"].notna(), None).tolist()
    if how == "fails":
        # What the handler met is known.
        assert parts == ([-EINTR] * SIGNALS + [None]) * rounds
        assert reads["blocks"].tolist() == [1] * rounds * (SIGNALS + 1)
        assert broken == 0
        return
    # Whether a read is one that was begun before cannot be seen: each part is told, and counted.
    polls = calls_of(watched, NR_POLL) if how == "stops" else reads[:0]
    of_polls = rounds // 2 if how == "stops" else 0
    assert parts == [None] * (rounds - of_polls) * (1 + SIGNALS)
    assert set(reads["blocks"]) == {1}
    assert broken == (rounds - of_polls) * SIGNALS
    # A poll is begun again under another number, which makes it the same call.
    polls = polls[polls["blocks"] > 0]
    assert polls["blocks"].tolist() == [1 + SIGNALS] * of_polls
    assert polls["ret"].isna().all()


def test_blocks_of_one_call_and_of_two_are_told_apart() -> None:
    # A write of three pages to a pipe of one blocks twice; a read of a page blocks at most once.
    with Watched(python("long_writes", 23), ()) as watched:
        assert watched.hear() == "done"
    writes = calls_of(watched, NR_WRITE)
    writes = writes[writes["arg0"] == 100]
    assert writes["blocks"].tolist() == [2] * 23
    blocked = watched.tables["sched_switch"]
    blocked = blocked[(blocked["prev_tid"] == watched.pid) & (blocked["prev_state"] == "blocked")]
    for call in writes.itertuples():
        inside = blocked["ts_ns"].between(call.enter_ns, call.exit_ns)
        assert inside.sum() == 2
        assert call.enter_since_ns < call.enter_ns
        assert call.exit_ns < call.exit_until_ns
    order = writes[["enter_since_ns", "enter_ns", "exit_ns", "exit_until_ns"]].to_numpy()
    assert (order[1:, 0] >= order[:-1, 2]).all()


def test_a_call_lies_between_the_ends_that_are_told() -> None:
    # By the program's own clock, before and after each of its reads.
    with Watched(python("timed_reads", 101), ()) as watched:
        told = [json.loads(watched.hear()) for _ in range(101)]
    reads = calls_of(watched, NR_READ)
    reads = reads[reads["arg0"] == 100]
    assert len(reads) == len(told) == 101
    for (begin_ns, end_ns), call in zip(told, reads.itertuples(), strict=True):
        assert begin_ns <= call.enter_ns <= call.exit_ns <= end_ns
        # The thread came on its CPU before, and was seen to have returned after.
        assert call.enter_since_ns < call.enter_ns
        assert call.exit_until_ns > call.exit_ns


def test_a_call_through_the_32_bit_entry_has_another_number(tmp_path: Path) -> None:
    options = CaptureOptions(runtime="none", detail="full")
    trace = Trace(record(python("foreign_calls", 23), output=tmp_path / "t", options=options))
    calls = trace.frame("syscall")
    # 20 is i386's getpid and x86-64's writev.
    foreign = calls[calls["nr"].isna()]
    assert len(foreign) == 23
    assert (foreign["ret"] == trace.manifest.pid).all()
    assert foreign["arg0"].isna().all()
    assert 20 not in set(calls["nr"].dropna())
    assert NR_GETPPID in set(calls["nr"].dropna())
    assert [(m.what, m.why) for m in trace.manifest.missing] == [
        (
            "the numbers of 23 system calls",
            "they were made through the 32-bit entry, whose numbers are others",
        )
    ]


@pytest.mark.parametrize("calls", CALLS)
def test_a_signal_in_a_pid_namespace_goes_to_the_thread_that_gets_it(
    calls: str, tmp_path: Path
) -> None:
    command = ["unshare", "--pid", "--fork", *python("signals", 23)]
    options = CaptureOptions(runtime="none", calls=calls)
    trace = Trace(record(command, output=tmp_path / "t", options=options))
    signals, tasks = trace.frame("signal"), trace.frame("task")
    (inside,) = set(signals.loc[signals["kind"] == "deliver", "tid"])
    assert inside in set(tasks["tid"])
    assert inside != trace.manifest.pid
    sent = signals[signals["kind"] == "tgkill"].sort_values("ts_ns")
    refused = [3] if calls == "exact" else []
    assert sent["errno"].tolist() == [0] * 23 + refused
    assert sent["tid"].tolist() == [inside] * 23 + [pd.NA] * len(refused)
    assert set(sent["sender_tid"]) == {inside}


def test_a_look_up_that_the_kernel_refuses_is_counted() -> None:
    # As to Linux 6.1 where one interrupts another: here every CPU is told that it is in one.
    programs = Programs(1 << 20, defines={"STORAGE_REFUSES": 1, "DETAIL_FULL": 1})
    with Watched(python("on_request", 0), programs=programs) as watched:
        assert watched.hear() == "ready"
        # A wake-up by an interrupt may meet a look-up here too: so some may be refused besides.
        before = programs.followed.shortfalls()["storage"]
        uses = programs.loaded.read("storage_uses", 0)
        uses["busy"] = 1
        with on_cpu(0):
            # Nobody else's look-up, which would take it away again, is half done on that CPU.
            programs.loaded.update("storage_uses", np.array(0, np.uint32), uses)
        watched.say("calls 1009")
        assert watched.hear() == "1009"
        refused = programs.followed.shortfalls()["storage"]
        uses["busy"] = 0
        programs.loaded.update("storage_uses", np.array(0, np.uint32), uses)
        watched.say("calls 23")
        assert watched.hear() == "23"
        besides = programs.followed.shortfalls()["storage"] - refused
    assert refused - before >= 2 * 1009
    told = (watched.tables["syscall"]["nr"] == NR_GETPPID).sum()
    # What is not told is counted.
    assert 23 - besides <= told <= 23
    assert told > 0
    programs.close()
