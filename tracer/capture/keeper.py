"""The tracer's side of the keeper (:mod:`tracer.capture.keeper_process`)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tracer.errors import PretakeError
from tracer.trace.parts import Owner

__all__ = ["Keeper", "Place"]

_MESSAGE: Final = 1 << 16
_ROOT: Final = Path(__file__).parents[2]
_MAIN: Final = (
    "import sys; sys.path.insert(0, sys.argv[2]); "
    "from tracer.capture.keeper_process import main; main()"
)

Place = tuple[str, int, bytes]
"""Where a probe goes: the BPF function, the offset in the file, and the bytes that are there."""


class Keeper:
    """Asks the process that keeps the capabilities.

    Args:
        pid: the target that the capture was started for.
        command: a descriptor of it, if it may be ended; else None.
        threads: the map that hangs on each target thread, and the bytes of a value.
        programs: of the uprobes, by name.
        links: whether uprobes are to be had as links (:func:`tracer.kernel.bpf_call.
            open_uprobe_link`).
        writer: user that the trace is written by.
        owner: who is given the trace's files, where they are made by nobody.

    Raises:
        PretakeError: it does not start.
    """

    def __init__(
        self,
        *,
        pid: int,
        command: int | None,
        threads: tuple[int, int],
        programs: Mapping[str, int],
        links: bool,
        owner: Owner = None,
        writer: int = -1,
    ) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _MAIN, str(theirs.fileno()), str(_ROOT)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the tracer
            )
        given = {
            "pid": pid,
            "links": links,
            "storage_bytes": threads[1],
            "programs": list(programs),
            "owner": owner,
            "writer": writer,
        }
        fds = [threads[0], threads[0] if command is None else command, *programs.values()]
        self._may_end = command is not None
        self._value = 0
        socket.send_fds(self._socket, [json.dumps(given).encode()], fds)
        if self._socket.recv(_MESSAGE) != b"{}":
            self.close()
            raise PretakeError("the process that keeps the capabilities does not start")

    def open(self, pid: int, name: str) -> int:
        """A descriptor to read a file of a target process.

        Args:
            pid: the process.
            name: ``exe``, ``maps``, or ``map_files/BEGIN-END`` in hexadecimal.

        Raises:
            OSError: it is no target, has ended, or has no such file.
        """
        fds = self._ask({"do": "open", "pid": pid, "name": name})
        if not fds:
            raise OSError(2, "nothing was opened")
        return fds[0]

    def word(self, pid: int, address: int) -> int:
        """The 8 bytes at an address of a target process, as a signed number.

        Raises:
            OSError: it is no target, has ended, or has nothing there.
        """
        self._ask({"do": "word", "pid": pid, "address": address})
        return self._value

    def ahead_ns(self, pid: int) -> int | None:
        """How far ahead of the machine's the CLOCK_MONOTONIC of a target process is, in ns.

        Returns:
            None where that is not to be had: it is no target, has ended, or has left its time
            namespace to the children it will make.
        """
        try:
            self._ask({"do": "clock", "pid": pid})
        except OSError:
            return None
        return self._value

    def probe(self, pid: int, file: int, places: Sequence[Place]) -> None:
        """Put uprobes into one process, all of them or none.

        They leave by themselves when the process ends, and before anybody writes to the file.

        Args:
            pid: the process.
            file: a descriptor of the file; it is left open.
            places: where they go.

        Raises:
            OSError: the process has ended, the file has changed since it was looked at or cannot
                be held still, or the kernel refused.
        """
        told = [(function, offset, expected.hex()) for function, offset, expected in places]
        self._ask({"do": "probe", "pid": pid, "places": told}, file)

    def leave(self, pid: int | None = None) -> None:
        """Take the probes out of one process, or of all."""
        self._ask({"do": "leave", "pid": pid})

    def count(self, on: bool) -> None:
        """Let the kernel count what the BPF programs cost, or end that; OSError if it refuses."""
        self._ask({"do": "tracer", "what": "count", "on": on})

    def signal(self, signo: int) -> None:
        """Send SIGTERM or SIGKILL to the command that the tracer started."""
        if self._may_end:
            self._ask({"do": "tracer", "what": "signal", "signo": signo})

    def settle(self, folder: int, *, discard: bool = False) -> None:
        """Give the trace to who asked for it, or remove its folder, empty but for our files.

        Args:
            folder: a descriptor of the trace's folder; it is left open.
            discard: remove it.
        """
        self._ask({"do": "tracer", "what": "settle", "discard": discard}, folder)

    def close(self) -> None:
        """End it; every probe goes with it."""
        self._socket.close()
        self._process.wait()

    def _ask(self, request: dict[str, Any], fd: int | None = None) -> list[int]:
        try:
            socket.send_fds(
                self._socket, [json.dumps(request).encode()], [] if fd is None else [fd]
            )
            text, fds, _, _ = socket.recv_fds(self._socket, _MESSAGE, 1)
        except OSError:
            text, fds = b"", []
        if not text:
            raise OSError(32, "the process that keeps the capabilities is gone")
        for given in fds:
            os.set_inheritable(given, False)
        reply = json.loads(text)
        self._value = int(reply.get("value", 0))
        error = reply.get("error")
        if error is not None:
            for given in fds:
                with contextlib.suppress(OSError):
                    os.close(given)
            raise OSError(1, error)
        return list(fds)
