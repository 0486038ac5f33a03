"""Histograms that are kept in the kernel, on the command line and for Prometheus."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.monkeypatch import MonkeyPatch
from prometheus_client.parser import text_string_to_metric_families

from reference_runtime.current import COMPILED
from tests.go import toolchains
from tests.kernel.started import PRETAKE, Started
from tests.kernel.test_safe import capabilities
from tracer.capture.live import OTHERS, Histogram, live, lower_ns
from tracer.errors import PretakeError

LIVE = [*PRETAKE, "live"]
ROOT = Path(__file__).parents[2]
READS = 200


def test_quantiles_of_a_histogram() -> None:
    assert [lower_ns(bucket) for bucket in (0, 40, 41, 44)] == [0, 1024, 1280, 2048]
    counts = np.zeros(256, np.int64)
    assert Histogram(counts).quantile(0.5) is None
    counts[[40, 44]] = 9, 1
    assert Histogram(counts).total == 10
    assert Histogram(counts).quantile(0.5) == (1024 + 1280) / 2
    assert Histogram(counts).quantile(0.99) == (2048 + 2560) / 2


def watch(*arguments: object, procs: int = 1) -> list[dict[str, Any]]:
    """The lines of ``pretake live --json``."""
    done = subprocess.run(
        [*LIVE, "--json", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"GOMAXPROCS": str(procs)},
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"elap')]


@pytest.mark.go
def test_retakes_of_a_go_program_are_counted_by_system_call() -> None:
    binary = toolchains.build("blockread")
    lines = watch("--period", 0.2, "--", binary, READS)
    assert len(lines) >= 2
    counts = [sum(row["retakes"] for row in line["syscalls"]) for line in lines]
    assert counts == sorted(counts)
    # One P, two goroutines: a read that blocks long enough loses it, while the other one waits.
    [read] = [row for row in lines[-1]["syscalls"] if row["syscall"] == "read"]
    assert 10 < read["retakes"] <= READS
    assert 0 < read["harms"] <= read["retakes"]
    assert 0 < read["retake_ns"]["p50"] <= read["retake_ns"]["p99"]
    assert lines[-1]["runtime"] == "go"


def test_rows_tell_of_a_program_that_comes_later_and_of_no_moment_that_is_not_over(
    tmp_path: Path,
) -> None:
    """A call's row comes with the next event of its thread, at most half a second later."""
    gates = [tmp_path / name for name in ("first", "second")]
    for gate in gates:
        os.mkfifo(gate)
    command = ["sh", "-c", f"read line < {gates[0]}; exec cat {gates[1]}"]
    with live(command, rows=True) as watched:
        while True:
            first = watched.rows()
            assert first is not None
            assert first.until_ns <= time.monotonic_ns() - 500_000_000
            if first.tables["reach"].num_rows:
                break
            watched.wait(0.01)
        for gate in gates:
            gate.write_text("\n")
        while not watched.wait(0.01):
            pass
        begin_ns = time.monotonic_ns()
        last = watched.rows(last=True)
    assert last is not None
    assert last.until_ns >= begin_ns
    assert first.tables["reach"]["comm"].to_pylist() == ["sh"]
    assert last.tables["reach"]["comm"].to_pylist() == ["sh", "cat"]


@pytest.mark.go
@pytest.mark.parametrize(("version", "linkage"), [("1.27.3", "static"), ("1.21.13", "pie")])
def test_retakes_are_told_apart_by_call_site(version: str, linkage: str) -> None:
    binary = toolchains.build("callsites", version, linkage)
    source = (ROOT / "tests/go/callsites/main.go").read_text().splitlines()
    shares = []
    # A sysmon that waits for a CPU lets calls be: of so many runs one has most of each site's.
    for _ in range(RUNS):
        last = watch("--period", 60, "--", binary, *SITES.values())[-1]
        told = [row for row in last["call_sites"] if row["syscall"] == "nanosleep"]
        assert_sites_are_those_of(source, told)
        retakes = {row["call_site"]: row["retakes"] for row in told}
        shares.append({site: retakes.get(site, 0) / blocks for site, blocks in SITES.items()})
        if min(shares[-1].values()) > 0.5:
            return
    pytest.fail(f"of each site's calls in the runs: {shares}")


RUNS = 4
SITES = {"main.often": 20, "main.seldom": 10, "main.deep": 12}
"""And how often each blocks."""


def assert_sites_are_those_of(source: list[str], told: list[dict[str, Any]]) -> None:
    rows = {row["call_site"]: row for row in told}
    assert len(rows) == len(told)
    assert set(rows) <= set(SITES)
    for site, row in rows.items():
        assert 0 < row["retakes"] <= SITES[site]
        assert 0 < row["retake_ns"]["p50"] <= row["retake_ns"]["p99"]
        assert Path(row["file"]).name == "main.go"
        assert "syscall.Nanosleep(" in source[row["line"] - 1]
        # The very call of the function of that name.
        head = next(n for n, text in enumerate(source) if text.startswith(f"func {site[5:]}("))
        assert 0 < row["line"] - 1 - head <= 3


@pytest.mark.go
def test_sites_beyond_those_asked_for_are_one() -> None:
    binary = toolchains.build("callsites")
    last = watch("--period", 60, "--sites", 1, "--", binary, 30, 8, 4)[-1]
    rows = [row for row in last["call_sites"] if row["syscall"] == "nanosleep"]
    assert [row["call_site"] for row in rows] == ["main.often", "other"]
    [total] = [row for row in last["syscalls"] if row["syscall"] == "nanosleep"]
    for count in ("retakes", "harms"):
        assert sum(row[count] for row in rows) == total[count]


@pytest.mark.go
def test_the_kernel_keeps_so_many_stacks_and_loses_no_count(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("GOMAXPROCS", "1")
    command = [str(toolchains.build("callsites")), "0", "0", "60"]
    with live(command, max_sites=16) as watched:
        assert watched.wait(60)
        counts = watched.counts()
        stacks = watched.new_stacks()["stack"].to_pandas()
    told = {stack_id: own[0].sum() for (_, stack_id), own in counts.items()}
    assert set(told) == {*range(16), OTHERS}
    assert sorted(stacks["stack_id"].unique()) == list(range(16))
    # Each way to deep is taken once, so each stack is seen once; what is in "others" is more.
    assert {told[stack_id] for stack_id in range(16)} == {1}
    assert told[OTHERS] > 1


@pytest.mark.skipif(not COMPILED, reason="the interpreted runtime has nothing to probe")
def test_retakes_of_the_reference_runtime_are_those_that_it_recorded(tmp_path: Path) -> None:
    witness = tmp_path / "witness.jsonl"
    run = [sys.executable, "-m", "pretake", "run", "echo", "--rounds", 300, "--witness", witness]
    last = watch("--period", 60, "--", *run)[-1]
    assert last["runtime"] == "reference"
    retakes = sum(row["retakes"] for row in last["syscalls"])
    recorded = len(witness.read_text().splitlines())
    # Some are taken when the call has returned and its thread waits for a CPU.
    assert 0.95 * recorded <= retakes <= recorded
    unknown = sum(row["unknown"] for row in last["syscalls"])
    assert retakes + unknown <= recorded
    # Python keeps no frame pointers: there is no stack, and nothing is made up.
    assert {row["call_site"] for row in last["call_sites"]} == {None}
    assert sum(row["retakes"] for row in last["call_sites"]) == retakes


@pytest.mark.go
def test_the_watcher_keeps_no_more_than_it_needs_and_reaches_later_programs() -> None:
    shell = ["sh", "-c", 'exec "$@"', "sh", str(toolchains.build("callsites"))]
    with Started(
        [*LIVE, "--json", "--period", "0.1", "--", *shell, "1000000", "0", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"GOMAXPROCS": "1"},
    ) as watching:
        assert watching.stdout is not None
        # A program that a shell exec'd: looked at, and probed, after the capabilities went.
        assert any('"main.often"' in line for line in watching.stdout)
        held = capabilities(watching.pid)
        watching.send_signal(2)
        watching.stdout.read()
    assert watching.returncode == 0
    assert held == {0}


def test_a_socket_is_served_to_who_called_sudo_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    # One that a server left which was killed.
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with Started(
        [*LIVE, "--json", "--prometheus", f"unix:{path}", "--", "sleep", "1000"],
        stdout=subprocess.PIPE,
        env=os.environ | {"SUDO_UID": "1234", "SUDO_GID": "4321"},
    ) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 4321, 0o600)
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(path))
            asking.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: asking.recv(65536), b""))
        watching.send_signal(2)
        watching.stdout.read()
    assert watching.returncode == 0
    assert b"# TYPE pretake_retake_seconds histogram" in answer


def test_no_file_is_replaced_by_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    done = subprocess.run(
        [*LIVE, "--prometheus", f"unix:{path}", "--", "true"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == f"pretake: {path} cannot be served: Address already in use: choose another\n"
    )
    assert path.read_text() == "mine"


@pytest.mark.go
def test_prometheus_is_served_on_loopback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    binary = toolchains.build("callsites")
    arguments = ["--prometheus", str(port), "--sites", "1", "--period", "0.05"]
    program = [str(binary), "1", "1000000", "0", str(tmp_path / "go")]
    watching = subprocess.Popen(
        [*LIVE, "--json", *arguments, "--", *program],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"GOMAXPROCS": "1"},
    )
    assert watching.stdout is not None
    pages, rows = [], []
    # Twice: while one call site has the most retakes, and when the other has.
    for most in ("main.often", "main.seldom"):
        lines = (json.loads(line)["call_sites"] for line in watching.stdout if "elapsed" in line)
        rows.append(next(line[0] for line in lines if leads(line, most)))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            pages.append(retakes_of(answer.read().decode()))
        # Until now the first of them was the only one.
        (tmp_path / "go").touch()
    watching.send_signal(2)
    watching.stdout.read()
    assert watching.wait() == 0
    watching.stdout.close()
    for page, row in zip(pages, rows, strict=True):
        assert {site for _, site in page} <= {row["call_site"], "other"}
        for buckets in page.values():
            assert list(buckets.values()) == sorted(buckets.values())
    first, second = ({site: own["+Inf"] for (_, site), own in page.items()} for page in pages)
    assert first["main.often"] >= rows[0]["retakes"] > 0
    # It has lost its name, and what it told stays told: the others are what came since.
    assert second["main.seldom"] + first.get("other", 0) >= rows[1]["retakes"] > 0
    assert second.get("other", 0) >= first.get("other", 0)


@pytest.mark.go
def test_stall_time_is_told_by_cause_and_adds_up_to_the_programs_own_calls(tmp_path: Path) -> None:
    """One P, and a goroutine that blocks in read with it while others wait, 60 times."""
    told = tmp_path / "told"
    line = watch("--pressure", "--period", 60, "--", toolchains.build("truth"), "one-p", told)[-1]
    (process,) = line["pressure"]
    assert (process["comm"], process["procs"]) == ("truth", 1)
    states, whole = process["states"], process["pressure"]["total"]
    assert sum(states.values()) == round(whole["seconds"] * 1e9)
    rows = [row.split() for row in told.read_text().splitlines()]
    calls_ns = sum(int(row[2]) - int(row[1]) for row in rows if row[0] == "call")
    # A call is over when its thread has a CPU again, which is another state.
    assert 0 < states["syscall"] <= calls_ns
    assert states["syscall"] + states["no_cpu"] + states["transit"] >= 0.9 * calls_ns
    # With one P, some is full wherever it is known, and the lost P time is the time.
    held = whole["causes"]["syscall"]
    assert held["some"]["least_ns"] == held["full"]["least_ns"]
    assert 0 < held["some"]["least_ns"] <= states["syscall"]


@pytest.mark.go
def test_of_a_process_that_runs_already_all_is_known_since_the_watch_began() -> None:
    binary = str(toolchains.build("callsites"))
    running = subprocess.Popen([binary, "40", "1000000", "0"], stdout=subprocess.DEVNULL)
    try:
        line = watch("--pressure", "--period", 60, "--seconds", 3, "--pid", running.pid)[-1]
    finally:
        running.kill()
        running.wait()
    (process,) = line["pressure"]
    # It is counted from when the probes were in place, and not from before.
    assert process["states"]["running"] > 0
    assert process["states"]["unknown"] < sum(process["states"].values()) / 2


def test_stall_time_that_nobody_asked_for_is_null() -> None:
    [line] = watch("--period", 60, "--", "true")
    assert line["pressure"] is None
    # Asked for, of a program without Ps, it is none.
    [line] = watch("--pressure", "--period", 60, "--", "true")
    assert line["pressure"] == []


@pytest.mark.go
@pytest.mark.parametrize("more", [[], ["--pressure"]])
def test_the_screen_is_drawn_by_who_has_become_nobody(more: list[str], tmp_path: Path) -> None:
    """Nothing is imported then: modules may lie in root's home."""
    program = [str(toolchains.build("truth")), "one-p", str(tmp_path / "told")]
    done = subprocess.run(
        [*LIVE, *more, "--period", "60", "--", *program],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    assert "P-retake latency and harm" in done.stdout
    assert ("truth: pressure" in done.stdout) == bool(more)
    assert ("stall time by cause was not told" in done.stderr) != bool(more)


@pytest.mark.go
def test_prometheus_has_stall_time_as_counters_beside_gauges() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["--pressure", "--prometheus", str(port), "--period", "0.1"]
    binary = toolchains.build("callsites")
    watching = subprocess.Popen(
        [*LIVE, "--json", *arguments, "--", str(binary), "40", "1000000", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"GOMAXPROCS": "1"},
    )
    assert watching.stdout is not None
    pages = []
    for _ in range(2):
        lines = (json.loads(line) for line in watching.stdout if "elapsed" in line)
        seconds = 0 if not pages else pages[0][1]
        told = next(p for line in lines for p in line["pressure"] if second_of(p) > seconds)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            pages.append((answer.read().decode(), second_of(told)))
    watching.send_signal(2)
    watching.stdout.read()
    assert watching.wait() == 0
    watching.stdout.close()
    first, second = (
        {family.name: family for family in text_string_to_metric_families(page)}
        for page, _ in pages
    )
    for name in ("pretake_stall_seconds", "pretake_stall_any_seconds", "pretake_p_seconds"):
        assert first[name].type == "counter"
        later = {tuple(s.labels.items()): s.value for s in second[name].samples}
        for sample in first[name].samples:
            assert sample.value <= later[tuple(sample.labels.items())]
    assert first["pretake_retake_unknown"].type == "counter"
    for name in ("pretake_stall_ratio", "pretake_stall_any_ratio"):
        assert first[name].type == "gauge"
        assert all(0 <= sample.value <= 1 for sample in first[name].samples)
    assert {s.labels["kind"] for s in first["pretake_stall_ratio"].samples} == {"some", "full"}


def second_of(process: dict[str, Any]) -> float:
    return float(process["pressure"]["total"]["seconds"])


def leads(rows: list[dict[str, Any]], site: str) -> bool:
    """Whether a call site has more retakes than all others together."""
    others = sum(row["retakes"] for row in rows[1:])
    return bool(rows) and rows[0]["call_site"] == site and rows[0]["retakes"] > others


def retakes_of(page: str) -> dict[tuple[str, str], dict[str, float]]:
    """Of each system call and call site, the counts by upper bound."""
    families = {family.name: family for family in text_string_to_metric_families(page)}
    found: dict[tuple[str, str], dict[str, float]] = {}
    for sample in families["pretake_retake_seconds"].samples:
        call = sample.labels["syscall"], sample.labels["call_site"]
        found.setdefault(call, {})[sample.labels["le"]] = sample.value
    return found


def test_what_cannot_be_watched_is_told() -> None:
    with pytest.raises(PretakeError, match="nothing to watch"), live():
        pass
    with pytest.raises(PretakeError, match="there is no process"), live(pid=2**22 - 1):
        pass
