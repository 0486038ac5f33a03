"""The window of Go's own flight recorder, fetched when a dump is begun.

Example: the program has a ``runtime/trace.FlightRecorder`` (Go 1.25 and later) behind
``http://127.0.0.1:6060/flight``. At a trigger its last seconds are fetched, and the dump has them
as ``go.trace``, beside its own tables and on the same clock, CLOCK_MONOTONIC.

What answers is another's program. It may be dead, hang, or never end, so a fetch is bounded in
time and in bytes, runs on a thread of its own, and its failure is a line in the dump's manifest.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import socket
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Final, Protocol
from urllib.parse import urlsplit

from tracer.errors import PretakeError

__all__ = ["MOST_BYTES", "PATIENCE_S", "Fetch", "Flight", "flight_of"]

PATIENCE_S: Final = 5.0
MOST_BYTES: Final = 64 << 20
_PIECE: Final = 1 << 16
_MAGIC: Final = b"go 1."
_MAGIC_END: Final = b" trace\0\0\0"
_MAGIC_SIZE: Final = 16


class _RefusedError(Exception):
    """Why there is no window, in words."""


class Fetch(Protocol):
    """A window on its way."""

    def take(self, since_s: float) -> tuple[bytes, str]:
        """Wait for it, :data:`PATIENCE_S` at most from when it was begun.

        Args:
            since_s: time.time() of the dump's begin: what was written before is of another event.

        Returns:
            The window and an empty text; or nothing, and why.
        """


class Flight(Protocol):
    """Where a program's flight recorder gives its window."""

    def begin(self) -> Fetch:
        """Begin to fetch the window as it is now."""


def flight_of(source: str) -> Flight:
    """What a user names: ``http://127.0.0.1:PORT/PATH`` or a file.

    Raises:
        PretakeError: a URL that is not of this machine's loopback.
    """
    if "://" not in source:
        return _Filed(source)
    mend = "say for example http://127.0.0.1:6060/flight, or name a file"
    try:
        parts = urlsplit(source)
        host, port = parts.hostname or "", parts.port or 80
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise PretakeError(f"{source} names no address", mend) from None
    if parts.scheme != "http" or not address.is_loopback:
        raise PretakeError(f"{source} is not HTTP on this machine's loopback", mend)
    path = parts.path or "/"
    return _Served(source, str(address), port, f"{path}?{parts.query}" if parts.query else path)


class _Fetching(ABC):
    """Runs on a thread, which is left behind if it does not end in time."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._data, self._problem = b"", ""
        self._since_s = 0.0
        self._deadline_s = time.monotonic() + PATIENCE_S
        self._thread = threading.Thread(target=self._run, name="pretake-flight", daemon=True)

    def take(self, since_s: float) -> tuple[bytes, str]:
        del since_s
        self._thread.join(max(self._deadline_s - time.monotonic(), 0))
        if self._thread.is_alive():
            self._abandon()
            return b"", self._late()
        return self._data, self._problem

    def _run(self) -> None:
        pieces, size = [], 0
        try:
            with contextlib.closing(self._pieces()) as given:
                for piece in given:
                    size += len(piece)
                    if size > MOST_BYTES:
                        raise _RefusedError(f"gave more than {MOST_BYTES >> 20} MiB")
                    pieces.append(piece)
            data = b"".join(pieces)
            head = data[:_MAGIC_SIZE]
            if not (head.startswith(_MAGIC) and head.endswith(_MAGIC_END)):
                raise _RefusedError("gave no execution trace of Go")
            self._data = data
        except _RefusedError as refused:
            self._problem = f"{self._source} {refused}"
        except TimeoutError:
            # Of the socket, which has as much patience.
            self._problem = self._late()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self._problem = f"{self._source} cannot be read: {reason}"
        except http.client.HTTPException as error:
            self._problem = f"{self._source} broke off ({type(error).__name__})"
        except Exception as error:  # another's answer ends no dump
            self._problem = f"{self._source} cannot be read ({type(error).__name__})"

    def _late(self) -> str:
        return f"{self._source} had not answered whole after {PATIENCE_S:g} s"

    @abstractmethod
    def _pieces(self) -> Generator[bytes]:
        """What is given, piece by piece."""

    def _abandon(self) -> None:  # noqa: B027 - nothing ends a read of a file
        """Have the thread end, if anything can."""


class _Asking(_Fetching):
    def __init__(self, source: str, address: str, port: int, path: str) -> None:
        super().__init__(source)
        self._where, self._path = (address, port), path
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE_S)
        self._thread.start()

    def _pieces(self) -> Generator[bytes]:
        with contextlib.closing(http.client.HTTPConnection(*self._where)) as connection:
            # With its own, it would ask for names, and import what is no longer to be read.
            connection.sock = self._socket
            self._socket.connect(self._where)
            connection.request("GET", self._path, headers={"Connection": "close"})
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise _RefusedError(f"answered {answer.status}")
            while piece := answer.read1(_PIECE):
                yield piece
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)

    def _abandon(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class _Reading(_Fetching):
    """Begins when it is taken: until then the program may write."""

    def take(self, since_s: float) -> tuple[bytes, str]:
        self._since_s = since_s
        self._deadline_s = time.monotonic() + PATIENCE_S
        self._thread.start()
        return super().take(since_s)

    def _pieces(self) -> Generator[bytes]:
        # A FIFO would wait for a writer.
        fd = os.open(self._source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise _RefusedError("is no file")
            if status.st_mtime < self._since_s:
                raise _RefusedError("was last written before this dump begins")
            while piece := file.read(_PIECE):
                yield piece


class _Served:
    def __init__(self, source: str, address: str, port: int, path: str) -> None:
        self._asked = source, address, port, path

    def begin(self) -> Fetch:
        return _Asking(*self._asked)


class _Filed:
    def __init__(self, source: str) -> None:
        self._source = source

    def begin(self) -> Fetch:
        return _Reading(self._source)
