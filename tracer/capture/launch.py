"""The process to trace: a command that is held until the probes are in place, or one that runs.

A command starts as a shell that waits at a gate, so that its process can be made a target before
the command runs. When the gate opens, the shell becomes the command. It keeps the tracer's user,
terminal, folder and environment, as under ``perf record`` or ``strace``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from tracer.errors import PretakeError
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = [
    "RECORD_VARIABLE",
    "RESULT_VARIABLE",
    "Command",
    "RunningProcess",
    "comm_of",
    "present_rows",
    "threads_of",
]

RESULT_VARIABLE: Final = "PRETAKE_RESULT"
"""Environment variable: a file in which the command may leave one JSON object about its run,
such as the round trips it measured itself; the manifest keeps it."""

RECORD_VARIABLE: Final = "PRETAKE_RECORD"
"""Environment variable: a file to which a runtime in the command may append its own record of
retakes, for a capture that cannot see them (:mod:`tracer.trace.own_record`)."""

# The gate is closed when the tracer dies, too; then read fails, and nothing is run.
_GATE: Final = 'read -r _ <&{fd} && exec {fd}<&- "$@"'
_SHELL: Final = "/bin/sh"
_GRACE_S: Final = 5.0
_ENDING: Final = (signal.SIGTERM, signal.SIGKILL)
_RESULT_LIMIT: Final = 1 << 20


def threads_of(pid: int) -> list[int]:
    """Ids of the threads that ``pid`` has now; empty if it is no more."""
    try:
        return sorted(int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def comm_of(pid: int, tid: int) -> bytes | None:
    """The name of a thread (comm): bytes that its owner chose; None if it is no more."""
    try:
        return Path(f"/proc/{pid}/task/{tid}/comm").read_bytes().rstrip(b"\n")
    except OSError:
        return None


def present_rows(pid: int, tids: Sequence[int], now_ns: int) -> np.ndarray:
    """Records of table task for threads that were there before anybody looked."""
    table = TABLES["task"]
    rows = np.zeros(len(tids), table.dtype)
    rows["ts_ns"] = now_ns
    rows["tid"] = tids
    rows["pid"] = pid
    rows["parent_tid"] = rows["cpu"] = UNKNOWN
    rows["comm"] = [comm_of(pid, tid) or b"" for tid in tids]
    rows["kind"] = table.column("kind").code("present")
    return rows


class RunningProcess:
    """A process that runs already.

    Args:
        pid: the process.

    Raises:
        PretakeError: there is none, it is a thread of one, or it is the tracer.
    """

    def __init__(self, pid: int) -> None:
        if pid == os.getpid():
            raise PretakeError("pretake cannot trace itself", "name another process")
        try:
            self._fd = os.pidfd_open(pid)
        except (ProcessLookupError, OverflowError, OSError):
            mend = "look for it with pgrep"
            if pid > 0 and Path(f"/proc/{pid}").exists():
                raise PretakeError(f"{pid} is a thread of a process", mend) from None
            raise PretakeError(f"there is no process {pid}", mend) from None
        self.pid = pid

    @property
    def executable(self) -> Path:
        """The file it runs, in whatever mount namespace it is."""
        return Path(f"/proc/{self.pid}/exe")

    @property
    def pids(self) -> list[int]:
        """The process alone, as of :class:`tracer.capture.several.Several`."""
        return [self.pid]

    @property
    def fd(self) -> int:
        """A descriptor of it, which is readable when it has ended."""
        return self._fd

    def wait(self, seconds: float, or_fd: int | None = None) -> bool:
        """Wait up to ``seconds``, or until ``or_fd`` is readable; True if it has ended."""
        return _ended(self._fd, seconds, or_fd)

    def close(self) -> None:
        """Let go of it; it goes on."""
        os.close(self._fd)


class Command:
    """A program that is started to be traced.

    Args:
        argv: the program, found on PATH, and its arguments.
        own_record: ask a runtime in it for its own record.

    Attributes:
        record_fd: the file that the record goes to; None where nobody was asked for one.

    Raises:
        PretakeError: there is no such program, or it cannot be run.
    """

    def __init__(self, argv: Sequence[str], own_record: bool = False) -> None:
        if not argv:
            raise PretakeError("there is no command to run", "give one behind --")
        found = shutil.which(argv[0])
        if found is None:
            if Path(argv[0]).is_dir():
                raise PretakeError(f"{argv[0]} is a folder, not a program")
            if Path(argv[0]).is_file():
                raise PretakeError(f"{argv[0]} is not executable", f"chmod +x {argv[0]}")
            raise PretakeError(
                f"there is no program {argv[0]}", "check its name, or give its path"
            )
        self.argv = list(argv)
        self.executable = Path(found).resolve()
        self.exit_status: int | None = None
        # In memory, so that a tracer that is killed leaves no file behind.
        self._result_fd = os.memfd_create("pretake-result")
        self.record_fd = os.memfd_create("pretake-record") if own_record else None
        environment = {**os.environ, RESULT_VARIABLE: _path_of(self._result_fd)}
        environment.pop(RECORD_VARIABLE, None)
        if self.record_fd is not None:
            environment[RECORD_VARIABLE] = _path_of(self.record_fd)
        reader, self._gate = os.pipe()
        fd = _free_low_fd()
        try:
            self.pid = os.posix_spawn(
                _SHELL,
                [_SHELL, "-c", _GATE.format(fd=fd), _SHELL, *argv],
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, reader, fd)],
                # What Python ignores, the command shall not.
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        finally:
            os.close(reader)
        self._fd = os.pidfd_open(self.pid)
        self._signals = {signo: _Signal(self.pid, signo) for signo in _ENDING}

    def open_gate(self) -> None:
        """Let the command begin."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gate, b"\n")

    def wait(self, seconds: float, or_fd: int | None = None) -> bool:
        """Wait up to ``seconds``, or until ``or_fd`` is readable.

        Returns:
            True if it has ended, and then ``exit_status`` is known.
        """
        if self.exit_status is None and _ended(self._fd, seconds, or_fd):
            _, status = os.waitpid(self.pid, 0)
            self.exit_status = os.waitstatus_to_exitcode(status)
        return self.exit_status is not None

    def result(self) -> dict[str, Any] | None:
        """What the command left about its run; None for nothing, or for no JSON object."""
        try:
            left = json.loads(os.pread(self._result_fd, _RESULT_LIMIT, 0))
        except (ValueError, RecursionError):
            return None
        return left if isinstance(left, dict) else None

    def end(self) -> None:
        """Ask the command to end, and if it does not within seconds, end it."""
        for signo in _ENDING:
            if self.wait(0):
                return
            self._signals[signo].send()
            deadline = time.monotonic() + _GRACE_S
            while not self.wait(0.1) and time.monotonic() < deadline:
                pass

    def close(self) -> None:
        """Let go of it; a command whose gate was never opened ends."""
        os.close(self._gate)
        os.close(self._result_fd)
        for ending in self._signals.values():
            ending.close()
        if self.record_fd is not None:
            os.close(self.record_fd)
        if self.exit_status is None and self.wait(_GRACE_S):
            pass
        os.close(self._fd)


class _Signal:
    """A signal to a process, to be sent by whoever the sender is by then.

    The kernel asks whether it may be sent of who set it up (fcntl(2), F_SETOWN), and not of who
    writes to the pipe; and a process that has ended gets none, whoever has its number.
    """

    def __init__(self, pid: int, signo: int) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.fcntl(self._reader, fcntl.F_SETOWN, pid)
        fcntl.fcntl(self._reader, fcntl.F_SETSIG, signo)
        flags = fcntl.fcntl(self._reader, fcntl.F_GETFL)
        fcntl.fcntl(self._reader, fcntl.F_SETFL, flags | os.O_ASYNC)

    def send(self) -> None:
        os.write(self._writer, b"x")

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


def _path_of(fd: int) -> str:
    """One of our files, as the command finds it."""
    return f"/proc/{os.getpid()}/fd/{fd}"


def _ended(pidfd: int, seconds: float, or_fd: int | None) -> bool:
    """Wait for a process's end, or for something to read; tells whether it was the end."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if or_fd is not None:
        poll.register(or_fd, select.POLLIN)
    return any(fd == pidfd for fd, _ in poll.poll(seconds * 1000))


def _free_low_fd() -> int:
    """A file descriptor below 10, all that a POSIX shell can redirect, that is not in use."""
    for fd in range(9, 2, -1):
        try:
            if not os.get_inheritable(fd):
                return fd
        except OSError:
            return fd
    raise PretakeError("file descriptors 3 to 9 are all in use", "close one of them (3>&-)")
