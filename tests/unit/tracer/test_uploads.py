"""Dumps at a store: a real server of S3 on loopback, one that is not there, and one that hangs."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.object_store import URL, deaf_store, environment, files_of, s3_server
from tracer.capture import uploads as uploads_module
from tracer.capture.dumps import Dumps
from tracer.capture.upload_process import place_of
from tracer.capture.uploads import MOST_WAITING, Uploads, shown
from tracer.errors import PretakeError

FILES = {"block/0.parquet": b"b" * 3_000_000, "task/0.parquet": b"t"}
PROCESSES = {"7": {"comm": "api", "pod": None}}


def point_to(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    for name, value in environment(port).items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def store() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture
def dumps(tmp_path: Path) -> Iterator[Dumps]:
    made = Dumps(tmp_path / "d", 99, 1 << 30, drop=False)
    yield made
    made.close()


def dump(dumps: Dumps, begin_ns: int, host: str = "host7") -> str:
    """One that is whole; its name. The rows are no matter here."""
    name = dumps.begin(0.0)
    folder = dumps.making(name)
    manifest = {"host": host, "begin_ns": begin_ns, "asked": {"watch": {"processes": PROCESSES}}}
    for path, content in {**FILES, "manifest.json": json.dumps(manifest).encode()}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    dumps.finish(name)
    return name


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that the uploader may write to: it is nobody if the tests run as root."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def after(uploads: Uploads) -> list[str]:
    """What is told until it is known of each dump that waits what became of it."""
    lines = uploads.step()
    while uploads._asked:
        select.select([uploads._out], [], [])
        lines += uploads.step()
    return lines


def test_a_dump_is_at_the_store_as_it_is_here(
    dumps: Dumps, store: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(monkeypatch, store)
    uploads = Uploads(URL, dumps.fd, 300)
    name = dump(dumps, 5_000_000_042)
    uploads.add(name)
    lines = after(uploads)
    place = f"host7/api/{name.removesuffix('.pretake')}-000000042.pretake"
    manifest = (dumps.folder / name / "manifest.json").read_bytes()
    wanted = {**FILES, "manifest.json": manifest}
    assert files_of(store) == {f"{place}/{path}": content for path, content in wanted.items()}
    nbytes = sum(map(len, wanted.values()))
    assert lines == [f"{name} is at {URL}/{place}, {nbytes:,} bytes"]
    assert uploads.counts == {"uploaded": 1, "failed": 0, "dropped": 0}
    assert uploads.finish() == []


def test_what_an_earlier_watch_did_not_send_is_sent_and_the_rest_is_left(
    dumps: Dumps, store: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(monkeypatch, store)
    first, second = dump(dumps, 1, "host8"), dump(dumps, 2, "host8")
    uploads = Uploads(URL, dumps.fd, 300, [first])
    after(uploads)
    uploads.finish()
    uploads = Uploads(URL, dumps.fd, 300, dumps.names())
    sent = [line.rpartition(", ")[2] for line in after(uploads)]
    manifest = (dumps.folder / second / "manifest.json").read_bytes()
    assert sent == ["0 bytes", f"{sum(map(len, FILES.values())) + len(manifest):,} bytes"]
    uploads.finish()


def test_a_dead_store_is_told_once_and_all_are_sent_when_it_lives(
    dumps: Dumps, shared: Path
) -> None:
    # A folder that is not there yet: fsspec's way to a disk that is not mounted.
    place = shared / "mounted"
    place.write_bytes(b"")
    place.chmod(0o666)
    uploads = Uploads(f"file://{place}/dumps", dumps.fd, 300)
    lines = []
    for attempt in (1, 2, 3):
        uploads.add(dump(dumps, attempt))
        lines += after(uploads)
        assert uploads.counts == {"uploaded": 0, "failed": attempt, "dropped": 0}
        assert uploads.waiting == attempt
    assert len(lines) == 1
    assert lines[0].startswith(f"no dump could go to file://{place}/dumps: ")
    place.unlink()
    uploads.add(dump(dumps, 4))
    lines = after(uploads)
    assert lines[0] == f"file://{place}/dumps takes dumps again"
    assert len(list(place.rglob("manifest.json"))) == 4 == len(lines) - 1
    uploads.finish()


def test_nobody_listens_at_the_port(dumps: Dumps, monkeypatch: pytest.MonkeyPatch) -> None:
    with deaf_store() as port:
        pass  # it was free, and is again
    point_to(monkeypatch, port)
    uploads = Uploads(URL, dumps.fd, 300)
    uploads.add(dump(dumps, 1))
    (line,) = after(uploads)
    assert f'Could not connect to the endpoint URL: "http://127.0.0.1:{port}/' in line
    lines = uploads.finish()
    assert lines[-1].startswith(f"1 dumps are not known to be at {URL}; ")
    assert uploads.counts == {"uploaded": 0, "failed": 2, "dropped": 0}


def test_a_store_that_hangs_is_given_up_and_left(
    dumps: Dumps, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deaf_store() as port:
        point_to(monkeypatch, port)
        uploads = Uploads(URL, dumps.fd, 0.5)
        uploads.add(dump(dumps, 1))
        (line,) = after(uploads)
        assert "it took nothing for 0.5 s" in line
        # Its child is gone, and so is the connection that it had.
        children = Path(f"/proc/{uploads.pid}/task/{uploads.pid}/children")
        assert children.read_text() == ""
        uploads.finish()


def test_the_end_does_not_wait_for_a_store_that_hangs(
    dumps: Dumps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "_LAST_S", 0.1)
    with deaf_store() as port:
        point_to(monkeypatch, port)
        uploads = Uploads(URL, dumps.fd, 3600)
        uploads.add(dump(dumps, 1))
        (line,) = uploads.finish()
        assert line.startswith("1 dumps are not known to be at ")
        os.kill(uploads.pid, 9)
        os.waitpid(uploads.pid, 0)


def test_no_more_wait_than_may(dumps: Dumps, monkeypatch: pytest.MonkeyPatch) -> None:
    with deaf_store() as port:
        point_to(monkeypatch, port)
        uploads = Uploads(URL, dumps.fd, 3600)
        for number in range(1000):
            uploads.add(f"20261127T031507Z-{number}.pretake")
            uploads.step()
        assert uploads.waiting == MOST_WAITING
        assert uploads.counts["dropped"] == 1000 - MOST_WAITING
        uploads.close()
        os.kill(uploads.pid, 9)
        os.waitpid(uploads.pid, 0)


def test_a_dump_that_had_to_go_is_no_fault_of_the_store(dumps: Dumps, shared: Path) -> None:
    uploads = Uploads(f"file://{shared}/store", dumps.fd, 300)
    gone, there = dump(dumps, 1), dump(dumps, 2)
    dumps.remove(gone)
    uploads._wait(gone)
    uploads.add(there)
    first, second = after(uploads)
    assert first.startswith(f"{gone} does not go to file://")
    assert second.startswith(f"{there} is at file://")
    assert uploads.counts == {"uploaded": 1, "failed": 0, "dropped": 1}
    uploads.finish()


def test_the_watch_goes_on_without_its_uploader(dumps: Dumps, shared: Path) -> None:
    uploads = Uploads(f"file://{shared}/store", dumps.fd, 300)
    os.kill(uploads.pid, 9)
    uploads.add(dump(dumps, 1))
    lines = after(uploads)
    assert [line for line in lines if "the process that sends them has ended" in line] == lines
    uploads.add(dump(dumps, 2))
    assert uploads.step() == []
    assert (uploads.waiting, uploads.counts["failed"]) == (2, 1)
    uploads.finish()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("bucket/prefix", "it has no protocol"),
        ("nosuch://bucket", "Protocol not known: nosuch"),
        ("s3://", "it names no bucket or folder"),
    ],
)
def test_an_address_that_is_none_is_told_at_the_start(
    dumps: Dumps, url: str, problem: str
) -> None:
    with pytest.raises(PretakeError, match=problem):
        Uploads(url, dumps.fd, 300)


def process(comm: str | None, pod: str | None = None) -> dict[str, Any]:
    return {"comm": comm, "pod": pod}


@pytest.mark.parametrize(
    ("processes", "who"),
    [
        ([process("api", "u-1")], "u-1"),
        ([process("api", "u-1"), process("log", "u-1")], "u-1"),
        ([process("api", "u-1"), process("api", "u-2")], "api"),
        ([process("api"), process("api")], "api"),
        ([process("api"), process("log")], "several"),
        ([process("../../etc")], ".._.._etc"),
        ([process("..")], "__"),
        ([process(None)], "unknown"),
        ([], "unknown"),
    ],
)
def test_a_dump_is_named_by_host_pod_and_time(processes: list[dict[str, Any]], who: str) -> None:
    told = {"processes": {str(n): p for n, p in enumerate(processes)}}
    manifest = {"host": "a/b", "begin_ns": 12_000_000_034, "asked": {"watch": told}}
    name = "20261127T031507Z-1.pretake"
    assert place_of(name, manifest) == f"a_b/{who}/20261127T031507Z-1-000000034.pretake"


def test_a_password_in_an_address_is_not_shown() -> None:
    assert shown("sftp://me:secret@host/a@b") == "sftp://host/a@b"
    assert shown("s3://bucket/a@b") == "s3://bucket/a@b"
