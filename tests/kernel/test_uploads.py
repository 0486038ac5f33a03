"""What a watch sends to a store, and what is there when it is killed meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.go.test_watch import free_port, line_with, watching
from tests.kernel.started import PRETAKE, Started, python
from tests.kernel.test_watch import answer, dump_by_signal
from tests.object_store import URL, deaf_store, environment, files_of, s3_server, withholding


@pytest.fixture
def store() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture
def running() -> Iterator[int]:
    with Started(python("calls", 10**9, 0)) as process:
        yield process.pid
        process.kill()


def point_to(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    for name, value in environment(port).items():
        monkeypatch.setenv(name, value)


def options(pid: int, folder: Path) -> list[object]:
    return ["--pid", pid, "-o", folder / "d", "--after", 0, "--seconds", 1, "--to", URL]


def test_a_dump_is_at_the_store_and_can_be_read_there(
    tmp_path: Path, store: int, running: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(monkeypatch, store)
    port = free_port()
    with watching(*options(running, tmp_path), "--listen", port) as watch:
        name = dump_by_signal(watch)
        line = line_with(watch, f"{name} is at {URL}/")
        status, page = answer(port, "/metrics", "GET", {})
    assert status == 200
    assert b'pretake_watch_uploads_total{result="uploaded"} 1.0' in page
    assert b"pretake_watch_uploads_waiting 0.0" in page
    place = line.partition(" is at ")[2].partition(",")[0]
    host, who, folder = place.removeprefix(f"{URL}/").split("/")
    assert host == os.uname().nodename
    assert who == Path(f"/proc/{running}/comm").read_text().strip()
    own = tmp_path / "d" / name
    local = {str(path.relative_to(own)): path for path in own.rglob("*") if path.is_file()}
    assert files_of(store) == {
        f"{host}/{who}/{folder}/{file}": path.read_bytes() for file, path in local.items()
    }
    assert compared(place).stdout.count("\n") == 1


def test_a_store_that_hangs_stops_no_dump(
    tmp_path: Path, running: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deaf_store() as port:
        point_to(monkeypatch, port)
        with watching(*options(running, tmp_path), "--to-timeout", 0.5) as watch:
            dump_by_signal(watch)
            line_with(watch, f"no dump could go to {URL}: it took nothing for 0.5 s")
            dump_by_signal(watch)
    assert len(list((tmp_path / "d").iterdir())) == 2


def test_a_dump_half_sent_when_the_watch_is_killed_is_none_and_the_next_watch_sends_it(
    tmp_path: Path, store: int, running: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    with withholding(store, asked) as between:
        point_to(monkeypatch, between)
        command = [*PRETAKE, "watch", *map(str, options(running, tmp_path))]
        with Started(command, stderr=subprocess.PIPE, text=True) as watch:
            line_with(watch, "; dumps go to ")
            name = dump_by_signal(watch)
            asked.wait()
            uploaders = [pid for pid in children(watch.pid) if is_uploader(pid)]
            for pid in [watch.pid, *uploaders]:
                os.kill(pid, signal.SIGKILL)
            assert watch.wait() == -signal.SIGKILL
    half = files_of(store)
    place = f"{URL}/{next(iter(half)).rpartition('/')[0].partition('.pretake')[0]}.pretake"
    assert not [path for path in half if path.endswith("manifest.json")]
    point_to(monkeypatch, store)
    told = compared(place)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.count("\n") == 1
    with watching(*options(running, tmp_path)) as watch:
        line_with(watch, f"{name} is at {place}")
    assert compared(place).stdout.count("\n") == 1


def compared(place: str) -> subprocess.CompletedProcess[str]:
    # In a process of its own: fsspec keeps the stores that it has found.
    command = [*PRETAKE, "compare", place, "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def is_uploader(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"upload_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
