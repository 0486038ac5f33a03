"""The tracer's side of the parser's jail: a file and a question in, a checked answer out."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from tracer.errors import PretakeError
from tracer.targets.binary import NoRuntime, RuntimeBinary
from tracer.targets.jail.answers import Site, layout_from_bytes, sites_from_bytes
from tracer.targets.jail.confine import ADDRESS_SPACE_BYTES, CPU_S, WALL_S, wall_s
from tracer.targets.jail.server import HEAD, NO_MEMORY, QUESTION_LIMIT, REFUSED, UNCONFINED
from tracer.targets.program_file import check_regular

__all__ = ["Jail", "LookUp", "begin_look", "is_go", "look", "sites", "warm_up"]

_ANSWER_LIMIT: Final = 16 << 20
_SITES_AT_ONCE: Final = 1024
_GRACE_S: Final = 3.0
_START_S: Final = 10.0
"""How long the server may take to start, on a machine that has much else to do."""
_RUN: Final = "import sys; sys.path[:] = {path!r}; from {module} import main; main({fd})"
_ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
_SIGNALS: Final = {
    -signal.SIGALRM: f"took longer than {WALL_S:g} s, and than a busy machine explains",
    -signal.SIGXCPU: f"took more than {CPU_S} s of CPU time",
    -signal.SIGKILL: f"took more than {CPU_S} s of CPU time, or the machine's memory",
    NO_MEMORY: f"took more memory than {ADDRESS_SPACE_BYTES >> 20} MB",
    -signal.SIGSYS: "made a system call of another architecture",
}


class Pending:
    """A question that was asked.

    ``fileno()`` is readable once the answer is there; so it can be waited for beside others.
    """

    def __init__(
        self, path: Path, answer: int, told: int, deadline_s: float, heard: Callable[[], None]
    ) -> None:
        self._path = path
        self._heard = heard
        self._answer = answer
        self._told = told
        self._deadline_s = deadline_s

    def fileno(self) -> int:
        """A descriptor that becomes readable when the parser has ended."""
        return self._told

    def ready(self) -> bool:
        """Whether :meth:`take` would not wait."""
        return _readable(self._told, 0) or time.monotonic() > self._deadline_s

    def take(self) -> bytes:
        """The answer, not believed yet; it waits no longer than the parser may live.

        Raises:
            PretakeError: the file is damaged, or the parser of it was ended.
        """
        try:
            status = None
            if _readable(self._told, max(self._deadline_s - time.monotonic(), 0)):
                status = os.read(self._told, 4)
            if not status:
                raise PretakeError(f"{self._path} was not read: its parser did not answer")
            self._heard()
            (ended,) = struct.unpack("<i", status)
            if ended == UNCONFINED:
                raise PretakeError(
                    f"{self._path} was not read: this kernel has no seccomp to confine its parser"
                    " by",
                    "run a kernel with CONFIG_SECCOMP_FILTER=y",
                )
            if ended:
                why = _SIGNALS.get(ended, f"ended by {_name(ended)}")
                raise PretakeError(
                    f"{self._path} was not read: its parser {why}",
                    "build or install the program again",
                )
            return self._read()
        finally:
            self.close()

    def _read(self) -> bytes:
        nonsense = PretakeError(f"{self._path} was not read: its parser answered nonsense")
        kind, size = HEAD.unpack(os.pread(self._answer, HEAD.size, 0))
        if size > _ANSWER_LIMIT - HEAD.size:
            raise nonsense
        data = os.pread(self._answer, size, HEAD.size)
        if kind != REFUSED:
            return data
        try:
            problem, mend = json.loads(data[:4096])
            raise PretakeError(_clean(problem), _clean(mend))
        except (ValueError, TypeError, RecursionError):
            raise nonsense from None

    def close(self) -> None:
        """Ask no more."""
        for fd in (self._answer, self._told):
            if fd >= 0:
                os.close(fd)
        self._answer = self._told = -1


class LookUp:
    """A look at a file that goes on beside the capture; made by :func:`begin_look`."""

    def __init__(self, pending: Pending, path: Path, size: int) -> None:
        self._pending = pending
        self._path = path
        self._size = size

    def fileno(self) -> int:
        """A descriptor that becomes readable when :meth:`result` would not wait."""
        return self._pending.fileno()

    def ready(self) -> bool:
        """Whether :meth:`result` would not wait."""
        return self._pending.ready()

    def result(self) -> RuntimeBinary | NoRuntime:
        """What there is to know; ask once.

        Raises:
            PretakeError: the file is damaged, or its parser was ended or answered nonsense.
        """
        data = self._pending.take()
        try:
            return layout_from_bytes(data, self._path, self._size)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise PretakeError(
                f"{self._path} was not read: its parser answered nonsense"
            ) from error


class Jail:
    """The server of parsers, started when it is first asked, and again where it is gone.

    Args:
        module: whose ``main`` serves.

    Example:
        >>> jail = Jail()
        >>> jail.ask(fd, Path("server"), {"deep": True}).take()
    """

    def __init__(self, module: str = "tracer.targets.jail.server") -> None:
        self._module = module
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._owner = os.getpid()
        self._ready_s = 0.0

    @property
    def server_pid(self) -> int | None:
        """Its process; None where it has not been started."""
        return self._server.pid if self._server is not None else None

    def start(self) -> None:
        """Start the server, unless it runs; it is ready some tenths of a second later."""
        with self._lock:
            self._start()

    def ask(self, fd: int, path: Path, question: dict[str, object], more: bytes = b"") -> Pending:
        """Have one file read, in a process that reads nothing else.

        Args:
            fd: of the file; it stays the caller's.
            path: for messages.
            question: what is asked, see :func:`tracer.targets.jail.server.answer_to`.
            more: bytes behind it.

        Raises:
            PretakeError: it is no regular file, or the server cannot be started.
        """
        check_regular(fd, path)
        asked = json.dumps({"path": str(path)[:4096]} | question).encode() + b"\0" + more
        if len(asked) > QUESTION_LIMIT:
            raise ValueError("too much is asked at once")
        with contextlib.ExitStack() as opened:
            asks, answers = _memory("pretake-question"), _memory("pretake-answer")
            opened.callback(os.close, asks)
            os.write(asks, asked)
            os.truncate(answers, _ANSWER_LIMIT)
            fcntl.fcntl(answers, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
            told, tells = os.pipe2(os.O_CLOEXEC)
            opened.callback(os.close, tells)
            with self._lock:
                self._send([fd, asks, answers, tells])
            deadline_s = max(self._ready_s, time.monotonic()) + wall_s() + _GRACE_S
            return Pending(path, answers, told, deadline_s, self._is_ready)

    def close(self) -> None:
        """End the server, where this process started it."""
        with self._lock:
            if self._owner == os.getpid():
                self._stop()

    def _is_ready(self) -> None:
        self._ready_s = 0.0

    def _send(self, fds: list[int]) -> None:
        for attempt in range(2):
            self._start()
            assert self._control is not None
            try:
                socket.send_fds(self._control, [b"read"], fds)
                return
            except OSError as error:
                self._stop()
                if attempt:
                    raise PretakeError(
                        f"the parser of programs does not start ({error})", "see 'pretake doctor'"
                    ) from error

    def _start(self) -> None:
        if self._owner != os.getpid():
            # A fork of the tracer has no part in its server.
            if self._control is not None:
                self._control.close()
            self._server, self._control, self._owner = None, None, os.getpid()
        if self._server is not None and self._server.poll() is None:
            return
        self._stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            run = _RUN.format(path=sys.path, module=self._module, fd=theirs.fileno())
            try:
                # In a session of its own: Ctrl-C at the terminal ends the capture, which ends it.
                self._server = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", run],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=_ENVIRONMENT,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise PretakeError(
                    f"the parser of programs does not start ({error.strerror})",
                    "see 'pretake doctor'",
                ) from error
        self._control = ours
        self._ready_s = time.monotonic() + _START_S

    def _stop(self) -> None:
        """Close its socket, by which it ends; whatever it reads ends by its own clock."""
        if self._control is not None:
            # For whoever has it too: a fork that lives on would keep the server alive.
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)
            self._control.close()
        if self._server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(_GRACE_S)
        self._server = self._control = None


_jail: Final = Jail()
atexit.register(_jail.close)


def warm_up() -> None:
    """Start the server, so that the first look need not wait for it.

    Call it before privileges are given up: afterwards it could not become nobody.
    """
    _jail.start()


def begin_look(fd: int, path: Path, *, deep: bool) -> LookUp:
    """Begin a look at a program or library.

    Args:
        fd: of the file; it stays the caller's.
        path: where it is found again for probes, and for messages.
        deep: read its debug information also where the shipped tables know its version.

    Raises:
        PretakeError: it is no regular file.
    """
    pending = _jail.ask(fd, path, {"deep": deep})
    return LookUp(pending, path, os.fstat(fd).st_size)


def look(fd: int, path: Path, *, deep: bool) -> RuntimeBinary | NoRuntime:
    """The same, waited for: some 10 ms without debug information, 100 ms with it.

    Raises:
        PretakeError: it is no regular file, damaged, or its parser was ended.
    """
    return begin_look(fd, path, deep=deep).result()


def is_go(fd: int, path: Path) -> bool:
    """Whether a look would find Go's runtime; it reads no more of the file than that takes.

    Args:
        fd: of the file; it stays the caller's.
        path: for messages.

    Raises:
        PretakeError: it is no regular file, damaged, or its parser was ended.
    """
    answer = _jail.ask(fd, path, {"go": True}).take()
    if answer not in (b"\0", b"\1"):
        raise PretakeError(f"{path} was not read: its parser answered nonsense")
    return answer == b"\1"


def sites(fd: int, path: Path, addresses: np.ndarray) -> list[Site]:
    """What instructions of a Go program are.

    Args:
        fd: of the file; it stays the caller's.
        path: for messages.
        addresses: link-time addresses (take the load bias off first).

    Returns:
        One for each address, in their order.

    Raises:
        PretakeError: it is no Go program, damaged, or its parser was ended.
    """
    found: list[Site] = []
    for at in range(0, len(addresses), _SITES_AT_ONCE):
        part = np.asarray(addresses[at : at + _SITES_AT_ONCE], "<i8")
        data = _jail.ask(fd, path, {"sites": True}, part.tobytes()).take()
        try:
            found += sites_from_bytes(data, len(part))
        except (ValueError, LookupError, struct.error) as error:
            raise PretakeError(f"{path} was not read: its parser answered nonsense") from error
    return found


def _memory(name: str) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _readable(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _clean(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError("no text")
    return "".join(c if c.isprintable() else "?" for c in text[:1000])


def _name(ended: int) -> str:
    if ended > 0:
        return f"itself with status {ended}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-ended).name
    return f"signal {-ended}"
