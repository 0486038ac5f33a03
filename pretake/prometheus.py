"""What ``pretake live`` counts, for Prometheus to read."""

from __future__ import annotations

import contextlib
import io
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from analysis.answers.live import TopCalls
from analysis.formats.prometheus import families
from tracer.capture.live import WHATS, lower_ns
from tracer.errors import PretakeError
from tracer.kernel.bcc_loader import calling_user

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    import numpy as np

    from analysis.answers.live import Call
    from analysis.answers.pressure import ProcessPressure

__all__ = ["UNKNOWN_SITE", "Server", "Stalls", "buckets"]

UNKNOWN_SITE = "unknown"
"""Label of the calls whose stack was not to be had."""

_MEANINGS = {
    "retake": "from a thread's block to its P being taken",
    "harm": "the same, where work waited and nobody else could run it",
}
_BOUNDS = range(4 * 10, 4 * 35, 4)
"""An octave a bucket, from a microsecond to half a minute."""
_CLIENTS = 16
"""Who is answered at one time; the next one is turned away, and may ask again."""
_PATIENCE_S = 10.0
"""A client that neither asks nor reads for so long is left."""


class Server:
    """Where Prometheus asks: a port of loopback, or a socket in the file system.

    Make it before capabilities are given up. Whoever is on this machine may ask the port, and
    reads names of the watched program's functions there. The socket belongs to who called sudo,
    and only that user may connect.

    Args:
        where: the port, or the path of the socket; a socket that nobody serves is replaced.
        everywhere: the port is one of every address of this machine, and not of loopback alone.

    Raises:
        PretakeError: it is not to be had.
    """

    def __init__(self, where: int | Path, everywhere: bool = False) -> None:
        self._path = where if isinstance(where, Path) else None
        try:
            if isinstance(where, Path):
                _remove_left(where)
                self._server: WSGIServer = _UnixServer(str(where), _Handler)  # type: ignore[arg-type]
            else:
                self._server = _Server(("" if everywhere else "127.0.0.1", where), _Handler)
        except OSError as error:
            name = f"port {where}" if self._path is None else f"{where}"
            raise PretakeError(
                # A path that is too long has no number of an error.
                f"{name} cannot be served: {error.strerror or error}",
                "choose another",
            ) from None

    @contextlib.contextmanager
    def serving(
        self,
        look: Callable[[], Mapping[Call, np.ndarray]],
        most: int,
        unknown: Callable[[], Mapping[str, int]],
        pressure: Callable[[], Sequence[ProcessPressure]] | None = None,
    ) -> Iterator[None]:
        """Answer, on another thread.

        Args:
            look: what was counted up to now; called for each question.
            most: how many pairs of system call and call site have a series of their own.
            unknown: retakes that no histogram has, by system call.
            pressure: stall time of each process; None where it is not to be had: then there is
                no such metric, and not one that says 0.
        """
        registry = CollectorRegistry()
        registry.register(_Counted(look, most, unknown))
        if pressure is not None:
            registry.register(Stalls(pressure))
        with self.answering(make_wsgi_app(registry)):
            yield

    @contextlib.contextmanager
    def answering(self, application: WSGIApplication) -> Iterator[None]:
        """Answer by an application, on another thread."""
        self._server.set_app(application)
        ended, end = os.pipe2(os.O_CLOEXEC)
        thread = threading.Thread(target=self._answer, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.close(end)
            thread.join()
            os.close(ended)

    def _answer(self, ended: int) -> None:
        """Answer until nobody holds the other end of a pipe.

        ``serve_forever`` looks twenty times a second whether it is to end, which costs a watch
        more than its rules do.
        """
        poll = select.poll()
        poll.register(self._server, select.POLLIN)
        poll.register(ended, select.POLLIN)
        while all(fd != ended for fd, _ in poll.poll()):
            self._server.handle_request()

    def close(self) -> None:
        """Serve no more."""
        self._server.server_close()
        if self._path is not None:
            # In a folder of root's it stays, and the next server replaces it.
            with contextlib.suppress(OSError):
                self._path.unlink()


_Request = socket.socket | tuple[bytes, socket.socket]
"""As :mod:`socketserver` has it."""


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE_S

    def get_stderr(self) -> TextIO:
        """Errors are the client's: one that went, or that never reads."""
        return io.StringIO()

    def log_message(self, format: str, *args: object) -> None:
        """The terminal is the program's."""

    def address_string(self) -> str:
        return "local"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    timeout = 0
    """A client that went before it was asked for is not waited for."""
    _room = threading.BoundedSemaphore(_CLIENTS)

    def process_request(self, request: _Request, client_address: object) -> None:
        """Answer on a thread of its own, as long as there are few."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        """On that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away, or that never reads, is no error of ours."""

    def server_bind(self) -> None:
        # The base class asks the name service for the machine's name.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])
        self.setup_environ()


class _UnixServer(_Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        path = str(self.server_address)
        before = os.umask(0o177)
        try:
            self.socket.bind(path)
        finally:
            os.umask(before)
        owner = calling_user()
        if owner is not None:
            os.chown(path, *owner)
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        request, _ = self.socket.accept()
        return request, ("local", 0)


def _remove_left(path: Path) -> None:
    """Remove a socket whose server is gone; nothing else is ever removed."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


class _Counted(Collector):
    def __init__(
        self,
        look: Callable[[], Mapping[Call, np.ndarray]],
        most: int,
        unknown: Callable[[], Mapping[str, int]],
    ) -> None:
        self._look = look
        self._top = TopCalls(most)
        self._unknown = unknown

    def describe(self) -> Iterator[Metric]:
        yield from (_family(what) for what in WHATS)
        yield _unknown_family()

    def collect(self) -> Iterator[Metric]:
        told = self._top.look(self._look())
        for number, what in enumerate(WHATS):
            family = _family(what)
            for call, counts in told.items():
                labels = [call.syscall, call.site or UNKNOWN_SITE]
                family.add_metric(labels, buckets(counts[number]), sum_value=None)
            yield family
        lacking = _unknown_family()
        for syscall, count in self._unknown().items():
            lacking.add_metric([syscall], count)
        yield lacking


def _unknown_family() -> CounterMetricFamily:
    return CounterMetricFamily(
        "pretake_retake_unknown",
        "Ps that were taken nobody knows how long after the block; in no histogram",
        labels=["syscall"],
    )


class Stalls(Collector):
    """Stall time by cause.

    Args:
        pressure: stall time of each process; called for each question.
    """

    def __init__(self, pressure: Callable[[], Sequence[ProcessPressure]]) -> None:
        self._pressure = pressure

    def describe(self) -> Iterator[Metric]:
        """What there would be."""
        yield from families(())

    def collect(self) -> Iterator[Metric]:
        """What there is now."""
        yield from families(self._pressure())


def _family(what: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(
        f"pretake_{what}_seconds", _MEANINGS[what], labels=["syscall", "call_site"]
    )


def buckets(counts: np.ndarray) -> list[tuple[str, float]]:
    """Counts of a :class:`~tracer.capture.live.Histogram` as Prometheus has them, in seconds."""
    below = counts.cumsum()
    told = [(repr(lower_ns(b) / 1e9), float(below[b - 1])) for b in _BOUNDS]
    return [*told, ("+Inf", float(below[-1]))]
