"""The flight recorder on real Go programs: from a stall to the line, and through restarts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from analysis.loaded import load
from tests.go import toolchains
from tests.go.test_pprof import said
from tests.kernel.started import PRETAKE, Started, assert_all_accounted_for
from tests.kernel.test_safe import capabilities

NR_READ = "0"
STALL_S = 2.5
RULE = "hold_ns > 2 s"
"""Nothing else holds a P for so long, however busy the machine is."""


@contextlib.contextmanager
def watching(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """``pretake watch`` that watches already; it is to end with status 0."""
    command = [*PRETAKE, "watch", *map(str, arguments)]
    with Started(command, stderr=subprocess.PIPE, text=True) as watch:
        try:
            line_with(watch, "; dumps go to ")
            yield watch
            watch.send_signal(signal.SIGTERM)
            assert watch.stderr is not None
            watch.stderr.read()
            assert watch.wait() == 0
        finally:
            watch.kill()


def line_with(watch: subprocess.Popen[str], text: str) -> str:
    """The next line of the watch that has a text; it may not end before."""
    assert watch.stderr is not None
    told = []
    for line in watch.stderr:
        told.append(line)
        if text in line:
            return line
    pytest.fail(f"{text!r} was not told, but {told}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def wait_in_read(pid: int) -> None:
    """Until a thread of a process is blocked in read of its FIFO."""
    while True:
        for folder in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                nr, fd, *_ = [*(folder / "syscall").read_text().split(), ""]
                if nr == NR_READ:
                    file = Path(f"/proc/{pid}/fd/{int(fd, 16)}").readlink()
                    if file.name == "fifo":
                        return
        os.sched_yield()


def switches_of(pid: int) -> int:
    """How often the threads of a process have blocked."""
    texts = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/status")]
    found = [re.search(r"^voluntary_ctxt_switches:\t(\d+)", text, re.MULTILINE) for text in texts]
    return sum(int(match[1]) for match in found if match is not None)


def wait_for_switches(pid: int, more: int) -> None:
    """Until the threads of a process have blocked so often from now on."""
    wanted = switches_of(pid) + more
    while switches_of(pid) < wanted:
        os.sched_yield()


@contextlib.contextmanager
def server(fifo: Path) -> Iterator[tuple[int, int]]:
    """A server that stalls when it is asked to: its process, and its port."""
    os.mkfifo(fifo)
    # Else sysmon's SIGURG breaks a raw call off every 10 ms.
    env = os.environ | {"GOMAXPROCS": "2", "GODEBUG": "asyncpreemptoff=1"}
    command = [toolchains.build("stalled"), fifo]
    with Started(command, stdout=subprocess.PIPE, text=True, env=env) as running:
        assert running.stdout is not None
        yield running.pid, int(running.stdout.readline())
        running.kill()


def stall(pid: int, port: int, fifo: Path) -> None:
    """One read from the FIFO that blocks for ``STALL_S``."""
    answers: list[bytes] = []

    def ask() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/stall") as answer:
            answers.append(answer.read())

    asking = threading.Thread(target=ask)
    asking.start()
    wait_in_read(pid)
    # Not to wait for anything: the stall is to be so long.
    threading.Event().wait(STALL_S)
    fifo.write_bytes(b"x")
    asking.join()
    assert answers == [b"done"]


def metrics(port: int) -> dict[str, list[tuple[dict[str, str], float, Any]]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics",
        headers={"Accept": "application/openmetrics-text; version=1.0.0"},
    )
    with urllib.request.urlopen(request) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            family.name: [(s.labels, s.value, s.exemplar) for s in family.samples]
            for family in families
        }


def test_a_stall_is_found_written_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPROF_TMPDIR", str(tmp_path))
    port, fifo, folder = free_port(), tmp_path / "fifo", tmp_path / "dumps"
    rules = ["--when", RULE, "--when", "lost_p > 99 % for 60 s"]
    with server(fifo) as (pid, serves):
        watch_it = ["--pid", pid, "-o", folder, *rules, "--seconds", 300, "--after", 1]
        with watching(*watch_it, "--listen", f"127.0.0.1:{port}") as watch:
            held = capabilities(watch.pid)
            # A client of the metrics that asks and never reads.
            deaf = socket.create_connection(("127.0.0.1", port))
            deaf.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            stall(pid, serves, fifo)
            line = line_with(watch, RULE)
            url = f"http://127.0.0.1:{port}/debug/pprof/ptime?seconds=300"
            top = said("1.27.3", "-top", "-cum", "-sample_index=hold", url)
            told = metrics(port)
            deaf.close()
    assert held == {0}
    assert_it_names_the_call(top)
    name = Path(line.removeprefix("pretake: ").partition(": ")[0]).name
    # Both counters name the dump in an exemplar.
    for family, labels in (
        ("pretake_watch_alarms", {"rule": RULE}),
        ("pretake_watch_dumps", {"result": "written"}),
    ):
        ((count, exemplar),) = [(n, e) for own, n, e in told[family] if own == labels]
        assert (count, exemplar.labels) == (1, {"dump": name})
    others = [
        count for labels, count, _ in told["pretake_watch_alarms"] if RULE not in str(labels)
    ]
    assert others == [0]
    assert [entry.name for entry in folder.iterdir()] == [name]
    assert_dump_names_the_line(folder / name)


def assert_it_names_the_call(top: str) -> None:
    """Rows of the real ``go tool pprof``: the raw read held its P for the stall, and no other."""
    rows = {line.split()[-1]: line.split() for line in top.splitlines()[5:]}
    (own,) = [row for name, row in rows.items() if name == "main.readRaw"]
    seconds = re.fullmatch(r"([\d.]+)(m?s)", own[3])
    assert seconds is not None
    assert float(seconds[1]) / (1000 if seconds[2] == "ms" else 1) >= STALL_S


def assert_dump_names_the_line(path: Path) -> None:
    source = (Path(__file__).parent / "stalled/main.go").read_text().splitlines()
    line = next(n for n, text in enumerate(source, 1) if "RawSyscall(syscall.SYS_READ" in text)
    done = subprocess.run(
        [*PRETAKE, "summary", "--json", path], check=True, capture_output=True, text=True
    )
    verdict = json.loads(done.stdout)["verdict"]
    named = [finding["what"] for finding in verdict["findings"]]
    assert f"at main.go:{line} (read)" in named
    whole = load(path)
    manifest = whole.manifest
    assert manifest.complete
    assert manifest.asked["watch"]["trigger"].startswith(f"{RULE} (")
    assert_all_accounted_for(whole.trace)
    # The stall and a second after it are in it.
    assert manifest.begin_ns is not None
    assert manifest.end_ns is not None
    assert manifest.end_ns - manifest.asked["watch"]["trigger_ns"] >= (STALL_S + 1) * 1e9
    rules = whole.validate()
    broken = rules[(rules["kind"] == "runtime") & (rules["broken"] > 0)]
    assert broken.empty, broken["rule"].tolist()
    (process,) = whole.budget()["processes"]
    assert process["procs"] == 2
    assert process["states"]["syscall"] >= STALL_S * 1e9


def test_a_program_is_found_by_name_each_time_that_it_starts(tmp_path: Path) -> None:
    program, folder = tmp_path / f"reads-{os.getpid()}", tmp_path / "dumps"
    shutil.copy(toolchains.build("blockread"), program)
    pids = []
    options = ["-o", folder, "--seconds", 30, "--after", 1, "--dumps-per-hour", 2]
    with watching("--name", f"{program.name[:8]}*", *options) as watch:
        for round_ in range(2):
            running = start([str(program), "0"])
            pids.append(running.pid)
            line_with(watch, f"watching {program.name} ({running.pid})")
            wait_for_switches(running.pid, 100)
            watch.send_signal(signal.SIGUSR1)
            line_with(watch, ".pretake: SIGUSR1, ")
            running.kill()
            running.communicate()
            line_with(watch, f"process {running.pid} has ended")
            if round_:
                watch.send_signal(signal.SIGUSR1)
                line_with(watch, "no dump for 'SIGUSR1': 2 were written in the last hour")
    dumps = sorted(folder.iterdir(), key=lambda path: int(re.findall(r"\d+", path.name)[-1]))
    assert len(dumps) == 2
    for path, pid in zip(dumps, pids, strict=True):
        whole = load(path)
        assert whole.manifest.target.runtime == "go"
        assert_all_accounted_for(whole.trace)
        own = [p for p in whole.budget()["processes"] if p["pid"] == pid]
        assert [process["comm"] for process in own] == [program.name]
        assert own[0]["states"]["syscall"] > 0


def test_go_programs_are_found_by_themselves_and_no_others(tmp_path: Path) -> None:
    program, folder = tmp_path / "python3", tmp_path / "dumps"
    shutil.copy(toolchains.build("blockread", linkage="stripped"), program)
    # One is another user's, of a file that only its owner may read.
    tmp_path.chmod(0o755)
    program.chmod(0o711)
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(watching("--go", "-o", folder, "--seconds", 30, "--after", 1))
        commands = (
            [sys.executable, "-c", "input()"],
            ["sh", "-c", 'read _; exec "$0" 0', str(program)],
            ["setpriv", "--reuid=1234", "--clear-groups", str(program), "0"],
        )
        snake, becomes, first = (start(command) for command in commands)
        for process in (snake, becomes, first):
            stack.callback(process.communicate)
            stack.callback(process.kill)
        line_with(watch, f"watching python3 ({first.pid})")
        # The shell was looked at by now, and was none.
        assert becomes.stdin is not None
        becomes.stdin.write(b"\n")
        becomes.stdin.flush()
        line_with(watch, f"({becomes.pid})")
        wait_for_switches(first.pid, 100)
        watch.send_signal(signal.SIGUSR1)
        line_with(watch, ".pretake: SIGUSR1, ")
    (path,) = folder.iterdir()
    whole = load(path)
    assert whole.manifest.target.runtime == "go"
    told = {int(pid) for pid in whole.manifest.asked["watch"]["processes"]}
    assert {first.pid, becomes.pid} <= told
    assert snake.pid not in told
    assert snake.pid not in set(whole.trace.frame("task")["pid"])
    states = {p["pid"]: p["states"] for p in whole.budget()["processes"]}
    assert states[first.pid]["syscall"] > 0


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
