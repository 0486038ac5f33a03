"""Real Go with the retake by perf events built in (``bench/go/retake``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import load
from bench.go.retake import overlay
from bench.go.retake.build import build
from bench.go.retake.real import build_gvisor
from tests.go import toolchains
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.errors import PretakeError

VERSIONS = ("1.25.5", "1.27.3")
BY_EVENTS = ("schedout", "schedrun")
WAYS = ("sysmon", "schedout", "schedrun", "threadstate")
SOURCES = Path(overlay.__file__).parent


def program(version: str, name: str, folder: Path) -> Path:
    """One of the overlay's programs, built with it."""
    target = folder / f"{name}-{version}"
    build(
        toolchains.goroot(version),
        ["-tags=retake", "-ldflags=-checklinkname=0", "-o", str(target), "."],
        folder=SOURCES / name,
        environment=toolchains.environment(version) | {"CGO_ENABLED": "1"},
    )
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("retake")


def calls(binary: Path, kind: str, way: str, folder: Path, *before: str) -> dict[str, int]:
    """What the reader did in a run of half a second."""
    environment = os.environ | {"GODEBUG": f"retake={way}", "GOMAXPROCS": "1"}
    command = [*before, str(binary), kind, "0.5", str(folder)]
    told = json.loads(subprocess.check_output(command, env=environment, text=True))
    assert told["ops_per_s"] > 0
    reader: dict[str, int] = told["reader"]
    return reader


@pytest.mark.parametrize("way", BY_EVENTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_blocked_call_is_told_and_its_p_is_taken(version: str, way: str, folder: Path) -> None:
    binary = program(version, "calls", folder)
    for kind in ("fifo", "cgo"):
        told = calls(binary, kind, way, folder)
        assert 0 < told["taken"] <= told["told"]
        # The reader may be in the midst of one when it is asked.
        assert told["told"] - 1 <= told["taken"] + told["left"] + told["stale"] <= told["told"]
        assert told["unwatched"] == 0
        # The thread that is told runs P itself, where one stands to be told.
        assert (0 < told["ran"] <= told["taken"]) == (way == "schedrun")
    for way in ("sysmon", "threadstate", "nonsense"):
        assert set(calls(binary, "fifo", way, folder).values()) == {0}


@pytest.mark.parametrize("procs", [1, 2, 4])
@pytest.mark.parametrize("way", BY_EVENTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_blocked_call_is_told_once_and_a_parked_thread_never(
    version: str, way: str, procs: int, folder: Path
) -> None:
    binary = program(version, "gate", folder)
    environment = os.environ | {"GODEBUG": f"retake={way}", "GOMAXPROCS": str(procs)}
    told = json.loads(subprocess.check_output([str(binary), "40"], env=environment, timeout=120))
    # The program does not go on before each read was told, once: as a block, or, where it lost its
    # CPU before it blocked, as that.
    assert told["rounds"] == 40
    assert told["told"] + told["preempted"] == 40
    assert told["parks"] > 0
    assert told["told_of_parks"] == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_thread_that_cannot_be_watched_leaves_it_to_sysmon(version: str, folder: Path) -> None:
    binary = program(version, "calls", folder)
    # Room for the files that the program needs, and for no event beside them.
    told = calls(binary, "cgo", "schedout", folder, "prlimit", "--nofile=5:5")
    assert told["unwatched"] > 0


@pytest.mark.parametrize("version", VERSIONS)
def test_without_perf_events_it_is_sysmon_and_says_so_once(version: str, folder: Path) -> None:
    binary = program(version, "calls", folder)
    command = [sys.executable, str(Path(__file__).with_name("denied.py")), str(binary)]
    for trace, said in (("", 0), (",schedtrace=100", 1)):
        environment = os.environ | {"GODEBUG": f"retake=schedout{trace}", "GOMAXPROCS": "1"}
        done = subprocess.run(
            [*command, "cgo", "0.5", str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        told = json.loads(done.stdout)
        assert told["ops_per_s"] > 0
        assert told["reader"]["unwatched"] > 0
        assert told["reader"]["taken"] == told["reader"]["wakeups"] == 0
        assert done.stderr.count("retake=schedout: no perf events (errno 13)") == said


@pytest.mark.parametrize("way", BY_EVENTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_ten_thousand_threads_are_blocked_at_one_time(
    version: str, way: str, folder: Path
) -> None:
    binary = program(version, "stress", folder)
    environment = os.environ | {"GODEBUG": f"retake={way}"}
    done = subprocess.run(
        [str(binary), "threads", "10000"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "ok 10000\n", done.stderr[-2000:]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_lost_when_all_happens_at_once(version: str, way: str, folder: Path) -> None:
    binary = program(version, "stress", folder)
    environment = os.environ | {"GODEBUG": f"retake={way}"}
    done = subprocess.run(
        [str(binary), "30"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"ok {7 * 2 * 30}\n", done.stderr


@pytest.mark.every
@pytest.mark.parametrize("hint", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_gvisor_s_network_stack_works_in_each_way(
    version: str, hint: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "gvisor"
    build_gvisor(version, binary, hint=hint)
    for way in WAYS:
        environment = os.environ | {"GODEBUG": f"retake={way}", "GOMAXPROCS": "1"}
        told = json.loads(subprocess.check_output([str(binary), "100"], env=environment))
        assert told["round_trips"] == 100
    monkeypatch.setenv("GOMAXPROCS", "1")
    monkeypatch.setenv("GODEBUG", "retake=sysmon")
    trace = record([str(binary), "100"], output=tmp_path / "t.pretake", options=CaptureOptions())
    outcomes = set(load(trace).episodes().query("syscall == 'ppoll'")["outcome"])
    # Without the hint a P may be gone before its thread blocks, too: sysmon took it.
    assert ("retaken" in outcomes) is not hint
    assert hint <= ("handed_off" in outcomes)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("count", [0, 2])
def test_a_place_that_is_not_there_once_is_refused(
    version: str, count: int, tmp_path: Path
) -> None:
    goroot = toolchains.goroot(version)
    other = tmp_path / "go"
    (other / "src/runtime").mkdir(parents=True)
    (other / "VERSION").write_text((goroot / "VERSION").read_text())
    for name in ("proc.go", "os_linux.go"):
        text = (goroot / "src/runtime" / name).read_text()
        text = text.replace("newm(sysmon, nil, -1)", "newm(sysmon, nil, -1)" * count or "other()")
        (other / "src/runtime" / name).write_text(text)
    with pytest.raises(PretakeError, match=rf"where sysmon is started' {count} times"):
        overlay.make_overlay(other, tmp_path / "out")


def test_what_is_no_toolchain_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert overlay.main(["--goroot", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
