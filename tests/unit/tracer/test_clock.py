"""A suspend, and clocks of one's own: as the manifest tells them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from analysis.trust.witness import check
from pretake.cli import main
from tracer.errors import PretakeError
from tracer.trace.clock import (
    KernelClock,
    Moment,
    Offsets,
    note_clocks,
    offsets_of,
    suspended_ns,
)
from tracer.trace.made_trace import write_trace
from tracer.trace.manifest import Manifest

S = 1_000_000_000


@pytest.mark.parametrize(
    ("end", "asleep_ns"),
    [
        (Moment(30 * S, 130 * S), 0),
        # Two readings are never of one moment.
        (Moment(30 * S, 130 * S + 999_999), 0),
        (Moment(30 * S, 130 * S - 999_999), 0),
        (Moment(30 * S, 130 * S + 1_000_000), 1_000_000),
        (Moment(30 * S, 137 * S), 7 * S),
        # All of it.
        (Moment(10 * S, 117 * S), 7 * S),
    ],
)
def test_what_boottime_went_on_for_alone_is_a_suspend(end: Moment, asleep_ns: int) -> None:
    assert suspended_ns(Moment(10 * S, 110 * S), end) == asleep_ns
    manifest = Manifest()
    manifest.begins(Moment(10 * S, 110 * S))
    assert manifest.suspended_ns is None
    manifest.ends(end)
    assert manifest.suspended_ns == asleep_ns
    assert (manifest.begin_ns, manifest.begin_boot_ns) == (10 * S, 110 * S)
    assert (manifest.end_ns, manifest.end_boot_ns) == (end.monotonic_ns, end.boottime_ns)


@pytest.mark.parametrize("command", ["summary", "check"])
@pytest.mark.parametrize(("asleep_ns", "told"), [(7 * S, True), (0, False), (None, False)])
def test_a_suspend_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    asleep_ns: int | None,
    told: bool,
) -> None:
    trace = write_trace(tmp_path / "x.pretake", {}, {"suspended_ns": asleep_ns})
    with pytest.raises(SystemExit):
        main([command, str(trace.path)])
    assert ("the machine was suspended for 7 s of it" in capsys.readouterr().out) == told


def test_a_process_that_is_gone_has_no_known_clock() -> None:
    assert offsets_of(1 << 22) is None
    assert offsets_of("self") == Offsets()
    with subprocess.Popen(["true"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert offsets_of(zombie.pid) is None


def test_a_clock_that_could_not_be_read_is_not_taken_for_the_machines() -> None:
    told = {7: 0, 8: 5, 9: None}
    ahead: dict[str, int | None] = {"7": None, "6": 3}
    note_clocks(ahead, told, told.get)
    assert ahead == {"6": 3, "8": 5, "9": None}


def test_a_record_by_a_clock_that_could_not_be_read_is_not_compared(tmp_path: Path) -> None:
    tasks = {"ts_ns": [1, 2], "tid": [70, 90], "pid": [7, 9]}
    facts = {"begin_ns": 0, "end_ns": 100, "clocks_ahead_ns": {"9": None}}
    trace = write_trace(tmp_path / "x.pretake", {"task": tasks}, facts)
    record = tmp_path / "x.jsonl"
    record.write_text('{"ts_ns": 50, "tid": 70, "p": 0}\n')
    assert check(trace, record)["records"] == 1
    record.write_text('{"ts_ns": 50, "tid": 70, "p": 0}\n{"ts_ns": 51, "tid": 90, "p": 1}\n')
    with pytest.raises(PretakeError, match=r"1 rows .* process 9 "):
        check(trace, record)


def test_the_kernels_clocks_go_on_together() -> None:
    clock = KernelClock()
    one, other = clock.moment(), clock.moment()
    assert one.monotonic_ns <= other.monotonic_ns
    assert one.boottime_ns <= other.boottime_ns
    assert suspended_ns(one, other) == 0


def test_a_pause_between_the_two_readings_is_no_suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    # CLOCK_MONOTONIC is read, then CLOCK_BOOTTIME, 100 s ahead of it, then CLOCK_MONOTONIC again.
    monotonic_ns = iter([10 * S, 10 * S + 5_000_000, 11 * S, 11 * S + 400])
    boottime_ns = iter([110 * S + 4_900_000, 111 * S + 200])
    clock = KernelClock()
    monkeypatch.setattr("time.monotonic_ns", lambda: next(monotonic_ns))
    monkeypatch.setattr("time.clock_gettime_ns", lambda _clock: next(boottime_ns))
    assert clock.moment() == Moment(11 * S + 200, 111 * S + 200)


def test_a_machine_that_pauses_each_time_has_the_nearest_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ns = iter(range(0, 100 * S, 100_000))
    pauses = iter([7, 3, 9] + [8] * 100)

    def boottime_ns(_clock: int) -> int:
        for _ in range(next(pauses)):
            at_ns = next(now_ns)
        return at_ns + 100 * S

    clock = KernelClock()
    monkeypatch.setattr("time.monotonic_ns", lambda: next(now_ns))
    monkeypatch.setattr("time.clock_gettime_ns", boottime_ns)
    # The first pair takes ticks 0 to 8. The second begins at 9, reads boottime at 12, ends at 13.
    assert clock.moment() == Moment(1_100_000, 100 * S + 1_200_000)
