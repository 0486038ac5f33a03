"""Go's own flight recorder is asked, by servers that do what they like."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.tracer.test_dumps import Watched, lines_until
from tracer.capture import flight
from tracer.capture.dumps import Dumps
from tracer.capture.flight import flight_of
from tracer.capture.recorder import Recorder
from tracer.capture.watch import LATE_NS
from tracer.errors import PretakeError
from tracer.trace.reader import Trace

WINDOW = b"go 1.26 trace\0\0\0" + b"batches"


class Answers(BaseHTTPRequestHandler):
    """One path for each thing that a server may do."""

    ends: threading.Event

    def do_GET(self) -> None:
        path = self.path
        if path == "/absent":
            self.send_error(404)
            return
        if path == "/hang":
            self.ends.wait()
            return
        self.send_response(200)
        if path == "/broken":
            self.send_header("Content-Length", "1000")
        self.end_headers()
        if path == "/page":
            self.wfile.write(b"<html>")
            return
        self.wfile.write(WINDOW)
        while path == "/endless":
            try:
                self.wfile.write(bytes(1 << 16))
            except OSError:
                return
        if path == "/trickle":
            self.wfile.flush()
            self.ends.wait()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server; little patience, and little room."""
    monkeypatch.setattr(flight, "PATIENCE_S", 1.0)
    monkeypatch.setattr(flight, "MOST_BYTES", 1 << 20)
    Answers.ends = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_address[1]}"
        Answers.ends.set()
        server.shutdown()
        thread.join()


def test_a_window_that_is_served(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "PATIENCE_S", 60.0)
    assert flight_of(f"{url}/flight?x=1").begin().take(0) == (WINDOW, "")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("absent", "answered 404"),
        ("page", "gave no execution trace of Go"),
        ("broken", "broke off (IncompleteRead)"),
        ("endless", "gave more than 1 MiB"),
        ("hang", "had not answered whole after 1 s"),
        ("trickle", "had not answered whole after 1 s"),
    ],
)
def test_what_is_no_window_is_one_line(
    url: str, path: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path not in ("hang", "trickle"):
        # They end by themselves, however busy the machine is.
        monkeypatch.setattr(flight, "PATIENCE_S", 60.0)
    assert flight_of(f"{url}/{path}").begin().take(0) == (b"", f"{url}/{path} {why}")


def test_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    data, problem = flight_of(f"http://127.0.0.1:{port}/").begin().take(0)
    assert (data, problem.partition(": ")[2]) == (b"", "Connection refused")


@pytest.mark.parametrize(
    "source", ["http://example.com/", "http://10.1.2.3/", "https://127.0.0.1/", "ftp://[::1]/"]
)
def test_only_loopback_is_asked(source: str) -> None:
    with pytest.raises(PretakeError):
        flight_of(source)


def test_a_file_that_the_program_writes(tmp_path: Path) -> None:
    file = tmp_path / "flight"
    fetch = flight_of(str(file)).begin()
    # After the trigger, and before the dump is written.
    file.write_bytes(WINDOW)
    assert fetch.take(time.time() - 3600) == (WINDOW, "")


def _old(path: Path) -> None:
    path.write_bytes(WINDOW)
    os.utime(path, (1, 1))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_old, " was last written before this dump begins"),
        (lambda path: os.mkfifo(path), " is no file"),
        (lambda path: path.write_bytes(b"text"), " gave no execution trace of Go"),
        (lambda _: None, " cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_window(
    make: Callable[[Path], object], why: str, tmp_path: Path
) -> None:
    file = tmp_path / "flight"
    make(file)
    assert flight_of(str(file)).begin().take(time.time() - 60) == (b"", f"{file}{why}")


@pytest.mark.parametrize("path", ["flight", "hang"])
def test_a_dump_has_the_window_or_says_why_not(
    url: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path == "flight":
        monkeypatch.setattr(flight, "PATIENCE_S", 60.0)
    dumps = Dumps(tmp_path / "d", 9, 1 << 30, drop=False)
    watched = Watched()
    recorder = Recorder(watched, dumps, 30, 0, flight=flight_of(f"{url}/{path}"))
    name = recorder.trigger("SIGUSR1").name
    watched.now_ns += LATE_NS
    lines_until(recorder, 1)
    trace = Trace(tmp_path / "d" / str(name))
    told = [(missing.what, missing.why) for missing in trace.manifest.missing]
    if path == "flight":
        assert trace.go_trace is not None
        assert trace.go_trace.read_bytes() == WINDOW
        assert told == []
    else:
        assert trace.go_trace is None
        what = "the window of Go's own flight recorder"
        assert told == [(what, f"{url}/hang had not answered whole after 1 s")]
    dumps.close()
