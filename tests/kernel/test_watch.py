"""What a flight recorder survives, and to whom its dumps belong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.go.test_watch import free_port, line_with, watching
from tests.kernel.started import PRETAKE, Started, python
from tests.unit.tracer.test_dumps import Watched, entries, frozen, lines_until
from tests.unit.tracer.test_window import SWITCH
from tracer.capture.dumps import Dumps
from tracer.capture.frozen import Frozen
from tracer.capture.recorder import Recorder
from tracer.capture.watch import LATE_NS
from tracer.capture.window import Slice
from tracer.trace.reader import Trace


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


class Busy(Watched):
    """Has more rows than the disk has room, and later fewer."""

    rows = 200_000

    def freeze(self, begin_ns: int, end_ns: int, about: dict[str, object]) -> Frozen:
        del about
        records = np.zeros(self.rows, SWITCH)
        random = np.random.default_rng(1)
        records["ts_ns"] = begin_ns + random.integers(0, end_ns - begin_ns, self.rows)
        records["prev_tid"] = random.integers(0, 2**31, self.rows)
        piece = Slice(begin_ns, end_ns, {"sched_switch": records}, {}, records.nbytes)
        return frozen(begin_ns, end_ns, [piece])


def test_a_full_disk_is_one_line_and_the_next_dump_may_have_room(small_disk: Path) -> None:
    dumps = Dumps(small_disk / "d", 9, 1 << 30, drop=False)
    watched = Busy()
    recorder = Recorder(watched, dumps, 30, 0)
    name = recorder.trigger("SIGUSR1").name
    watched.now_ns += LATE_NS
    (line,) = lines_until(recorder, 1)
    assert f"{name} was not written: no room left on the disk of {name}: " in line
    assert entries(small_disk / "d") == []
    watched.rows = 100
    name = recorder.trigger("SIGUSR1").name
    watched.now_ns += LATE_NS
    (line,) = lines_until(recorder, 1)
    assert Trace(small_disk / "d" / str(name)).arrow("sched_switch").num_rows == 100
    assert recorder.counts == {"written": 1, "joined": 0, "refused": 0, "failed": 1}
    dumps.close()


def test_dumps_are_roots_and_go_on_with_the_next_watch(tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    with Started(python("calls", 10**9, 0)) as running:
        options = ["--pid", running.pid, "-o", folder, "--after", 0, "--disk", "1M"]
        for _ in range(2):
            with watching(*options, "--memory", "1M", "--seconds", "1") as watch:
                name = dump_by_signal(watch)
            assert owners(folder) == {(0, 0)}
            # That of the first watch, which has grown, goes when the second writes its own.
            assert entries(folder) == [name]
            (folder / name / "more").write_bytes(b"x" * (1 << 20))
        running.kill()


def dump_by_signal(watch: subprocess.Popen[str]) -> str:
    """The name of a dump that is asked for by SIGUSR1."""
    watch.send_signal(signal.SIGUSR1)
    line = line_with(watch, ".pretake: SIGUSR1, ")
    return Path(line.removeprefix("pretake: ").partition(": ")[0]).name


def owners(folder: Path) -> set[tuple[int, int]]:
    files = [folder, *folder.rglob("*")]
    return {(file.lstat().st_uid, file.lstat().st_gid) for file in files}


def test_when_the_process_has_ended_so_has_the_watch_and_the_dump_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "4321")
    folder = tmp_path / "dumps"
    with Started(python("calls", 10**9, 0)) as running:
        command = [*PRETAKE, "watch", "--pid", str(running.pid), "-o", folder, "--after", "0"]
        with Started(command, stderr=subprocess.PIPE, text=True) as watch:
            line_with(watch, "; dumps go to ")
            name = dump_by_signal(watch)
            running.kill()
            line_with(watch, "all processes have ended")
            assert watch.wait() == 0
    assert entries(folder) == [name]
    assert owners(folder) == {(1234, 4321)}


def answer(port: int, path: str, method: str, headers: dict[str, str]) -> tuple[int, bytes]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", method=method, headers=headers
    )
    try:
        with urllib.request.urlopen(request) as told:
            return int(told.status), told.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_what_is_asked_for_over_loopback(tmp_path: Path) -> None:
    port = free_port()
    asked: list[tuple[str, str, dict[str, str]]] = [
        ("/", "GET", {}),
        ("/dump", "GET", {}),
        ("/dump", "POST", {"Origin": "http://elsewhere.example"}),
        ("/elsewhere", "GET", {}),
        ("/debug/pprof/ptime?seconds=never", "GET", {}),
        ("/dump", "POST", {}),
        ("/dump", "POST", {}),
    ]
    with Started(python("calls", 10**9, 0)) as running:
        options = ["--pid", running.pid, "-o", tmp_path / "d", "--listen", str(port)]
        with watching(*options, "--after", 0, "--dumps-per-hour", 1, "--seconds", 1) as watch:
            turn_one_away(port)
            told: list[tuple[int, Any]] = []
            for number, (path, method, headers) in enumerate(asked):
                if number == len(asked) - 1:
                    line_with(watch, ".pretake: POST /dump, ")
                told.append(answer(port, path, method, headers))
        running.kill()
    assert [status for status, _ in told] == [200, 405, 403, 404, 400, 202, 429]
    assert b'"refused": "1 were written in the last hour' in told[-1][1]


def turn_one_away(port: int) -> None:
    """As many clients as there may be say nothing at all; then others are answered again."""
    deaf = [socket.create_connection(("127.0.0.1", port)) for _ in range(16)]
    with socket.create_connection(("127.0.0.1", port)) as more:
        more.settimeout(60)
        assert more.recv(1) == b""
    for one in deaf:
        one.close()
    while True:
        try:
            status, page = answer(port, "/metrics", "GET", {})
            break
        except OSError:
            os.sched_yield()  # the last of them are not done with yet
    assert status == 200
    assert b"pretake_watch_processes 1.0" in page


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    own = ["--pid", str(os.getpid())]
    cases = {
        "'hold > 3' is no rule: say for example": [*own, "--when", "hold > 3"],
        "there is nothing to watch: give --pid, --name, --cgroup or --go": [],
        "there is no process 4194303": ["--pid", "4194303"],
    }
    for text, options in cases.items():
        done = subprocess.run(
            [*PRETAKE, "watch", "-o", tmp_path / "d", *options], capture_output=True, text=True
        )
        assert done.returncode == 2
        assert done.stderr.startswith(f"pretake: {text}")
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "d").exists()
