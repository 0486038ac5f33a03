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

from tracer.capture.memory import Chain
from tracer.errors import PretakeError

__all__ = ["FOR_EVENTS", "FOR_FILES", "FOR_PROBES", "Keeper", "Place"]

_MESSAGE: Final = 1 << 16
_ROOT: Final = Path(__file__).parents[2]
_MAIN: Final = (
    "import sys; sys.path.insert(0, sys.argv[2]); "
    "from tracer.capture.keeper_process import main; main()"
)

# linux/capability.h
FOR_FILES: Final = sum(
    1 << bit
    for bit in (
        2,  # dac_read_search: a program that only its owner may read
        19,  # sys_ptrace: /proc/PID of another user's process
        40,  # checkpoint_restore: /proc/PID/map_files
    )
)
"""Capabilities that a keeper needs to answer everything but ``probe``."""
FOR_PROBES: Final = 1 << 28  # lease: of a file of another user's
"""What it needs for ``probe`` too."""
FOR_EVENTS: Final = 1 << 21  # sys_admin
"""What that takes besides where uprobes are no links (before Linux 6.6)."""

Place = tuple[str, int, bytes]
"""Where a probe goes: the BPF function, the offset in the file, and the bytes that are there."""


class Keeper:
    """Asks the process that keeps the capabilities.

    It begins at once; :meth:`wait` tells whether it did.

    Args:
        pid: the target that the capture was started for.
        threads: the map that hangs on each target thread, and the bytes of a value.
        programs: of the uprobes, by name; none for a keeper that puts no probes.
        links: whether uprobes are to be had as links (:func:`tracer.kernel.bpf_call.
            open_uprobe_link`).
        keep: its capabilities, as a set of bits.
        any_program: whether it also opens ``exe`` of a process that is no target.
    """

    def __init__(
        self,
        *,
        pid: int,
        threads: tuple[int, int],
        programs: Mapping[str, int],
        links: bool,
        keep: int,
        any_program: bool = False,
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
            "value_bytes": threads[1],
            "programs": list(programs),
            "keep": keep,
            "any_program": any_program,
        }
        socket.send_fds(
            self._socket, [json.dumps(given).encode()], [threads[0], *programs.values()]
        )
        self._reply: dict[str, Any] = {}
        self._begun = False

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def wait(self) -> None:
        """Until it answers.

        Raises:
            PretakeError: it does not start.
        """
        if self._begun:
            return
        self._begun = True
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
        fds = self._ask({"open": name, "pid": pid})
        if not fds:
            raise OSError(2, "nothing was opened")
        return fds[0]

    def words(self, pid: int, chains: Sequence[Chain]) -> list[list[int]]:
        """Words of a target process's memory (:func:`tracer.capture.memory.follow`).

        Raises:
            OSError: it is no target, or has ended.
        """
        self._ask({"words": chains, "pid": pid})
        return [[int(word) for word in words] for words in self._reply["words"]]

    def caught(
        self, pid: int, groups: Sequence[Sequence[Chain]]
    ) -> tuple[int, list[list[int]]] | None:
        """The same, as soon as one is not 0 (:func:`tracer.capture.memory.caught`).

        Raises:
            OSError: it is no target, or has ended.
        """
        self._ask({"caught": groups, "pid": pid})
        if self._reply["caught"] is None:
            return None
        number, told = self._reply["caught"]
        return int(number), [[int(word) for word in words] for words in told]

    def threads(self, pid: int) -> list[int]:
        """The threads of a target process, by the numbers that it knows them by itself.

        Raises:
            OSError: it is no target, or has ended.
        """
        self._ask({"threads": True, "pid": pid})
        return [int(tid) for tid in self._reply["threads"]]

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
        self._ask({"probe": told, "pid": pid}, file)

    def leave(self, pid: int | None = None) -> None:
        """Take the probes out of one process, or of all; OSError where there can be none."""
        self._ask({"probe": [], "pid": pid})

    def close(self) -> None:
        """End it; every probe goes with it."""
        self._socket.close()
        self._process.wait()

    def _ask(self, request: dict[str, Any], fd: int | None = None) -> list[int]:
        self.wait()
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
        self._reply = reply
        error = reply.get("error")
        if error is not None:
            for given in fds:
                with contextlib.suppress(OSError):
                    os.close(given)
            raise OSError(1, error)
        return list(fds)
