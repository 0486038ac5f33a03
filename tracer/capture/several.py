"""The processes of a watch: some by number, others as soon as they are there.

Example: ``--name 'api-*'`` finds each process whose program or name is so called, also the one
that a supervisor starts in the place of one that ended. ``--cgroup /system.slice/api.service``
finds all of a service, or of a container. ``--go`` finds every Go program, and with one of these
two only the Go programs among those.

Processes are looked for once a second, and only those are read that are new, for a machine may
have thousands. One that becomes another program late is found within half a minute.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import select
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tracer.capture.go_programs import GoPrograms
from tracer.capture.launch import RunningProcess
from tracer.capture.target_files import TargetFiles
from tracer.errors import PretakeError

__all__ = ["Several"]

_PERIOD_S: Final = 1.0
_YOUNG_S: Final = 10.0
"""For so long a process is looked at again: a fork becomes the program it was made for."""
_ALL_AGAIN_S: Final = 30.0
_PROC: Final = Path("/proc")
_CGROUPS: Final = "/sys/fs/cgroup"


class Several:
    """Holds the processes that are watched.

    Args:
        pids: processes that run.
        names: patterns, as a shell has them, of a program's file name or a process's name.
        cgroups: paths below the root of all cgroups, or of their folders.
        proc: where processes are told.
        go: find Go programs: among those of a name or cgroup, if there is one; else all. They
            are looked for by the first :meth:`find`, and not before.

    Attributes:
        came: how many were found, and not given by number.
        ended: how many have ended.

    Raises:
        PretakeError: nothing is asked for, or a process is not there.
    """

    def __init__(
        self,
        pids: Sequence[int] = (),
        names: Sequence[str] = (),
        cgroups: Sequence[str] = (),
        proc: Path = _PROC,
        go: bool = False,
    ) -> None:
        if not (pids or names or cgroups or go):
            mend = "give --pid, --name, --cgroup or --go"
            raise PretakeError("there is nothing to watch", mend)
        self.came = self.ended = 0
        self._proc = proc
        self._names = tuple(names)
        self._cgroups = tuple(_cgroup(path) for path in cgroups)
        self._go = GoPrograms() if go else None
        self._seen_s: dict[int, float] = {}
        self._next_s = self._all_s = 0.0
        self._gone: list[int] = []
        self._told_unread: set[int] = set()
        self._held: dict[int, RunningProcess] = {}
        self._polled: tuple[int, ...] = ()
        self._poll = select.poll()
        try:
            for pid in dict.fromkeys(pids):
                self._held[pid] = RunningProcess(pid)
        except PretakeError:
            self.close()
            raise
        # A program is read in a jail, which is not to be started before who calls us is ready.
        if self._go is None:
            for pid in self._looked_for():
                self._hold(pid)

    @property
    def pids(self) -> list[int]:
        """Those that are held, and live as far as is known."""
        return list(self._held)

    @property
    def pid(self) -> int:
        """The first of them; 0 while there is none."""
        return next(iter(self._held), 0)

    @property
    def executable(self) -> Path:
        """The file that the first one runs."""
        return self._proc / str(self.pid) / "exe"

    @property
    def more_may_come(self) -> bool:
        """Whether some are looked for: by name, by cgroup, or because they are Go programs."""
        return bool(self._names or self._cgroups or self.seeks_go)

    @property
    def seeks_go(self) -> bool:
        """Whether Go programs are looked for."""
        return self._go is not None

    @property
    def unread(self) -> dict[int, str]:
        """Processes that may be Go programs and cannot be read, and why."""
        return {} if self._go is None else self._go.unread

    def open_by(self, files: TargetFiles) -> None:
        """Have programs opened by who still may, from now on."""
        if self._go is not None:
            self._go.files = files

    def take_unread(self) -> list[int]:
        """Those of :attr:`unread` that are so since the last time."""
        new = [pid for pid in self.unread if pid not in self._told_unread]
        self._told_unread = set(self.unread)
        return new

    def find(self) -> list[int]:
        """Processes that are there since the last time, held from now on."""
        now_s = time.monotonic()
        if not self.more_may_come or now_s < self._next_s:
            return []
        self._next_s = now_s + _PERIOD_S
        return [pid for pid in self._looked_for() if self._hold(pid)]

    def take_ended(self) -> list[int]:
        """Those that have ended since the last time."""
        gone, self._gone = self._gone, []
        return gone

    def wait(self, seconds: float, or_fd: int | None = None) -> bool:
        """Wait up to ``seconds``, until one ends, or until ``or_fd`` is readable.

        Returns:
            True if all have ended and none may come.
        """
        by_fd = {process.fd: pid for pid, process in self._held.items()}
        polled = (*by_fd, *(() if or_fd is None else (or_fd,)))
        if polled != self._polled:
            self._poll, self._polled = select.poll(), polled
            for fd in polled:
                self._poll.register(fd, select.POLLIN)
        for fd, _ in self._poll.poll(max(seconds, 0) * 1000):
            if fd in by_fd:
                pid = by_fd[fd]
                self._held.pop(pid).close()
                self._gone.append(pid)
                self.ended += 1
        return not self._held and not self.more_may_come

    def close(self) -> None:
        """Let go of all; they go on."""
        for process in self._held.values():
            process.close()
        self._held.clear()

    def _hold(self, pid: int) -> bool:
        if pid in self._held:
            return False
        try:
            process = RunningProcess(pid)
        except PretakeError:
            return False
        # Held: its number is nobody else's from here on.
        if not (self._is_wanted(pid) and self._is_program_wanted(pid)):
            process.close()
            return False
        self._held[pid] = process
        self.came += 1
        return True

    def _is_program_wanted(self, pid: int) -> bool:
        if self._go is None:
            return True
        found = self._go.ask(pid)
        # One that ends has lost its program, and its arguments with it.
        if isinstance(found, str) and self._is_wanted(pid):
            self._go.unread[pid] = found
        else:
            self._go.unread.pop(pid, None)
        return found is True

    def _looked_for(self) -> Iterator[int]:
        if not self.more_may_come:
            return
        now_s = time.monotonic()
        again = now_s >= self._all_s
        if again:
            self._all_s = now_s + _ALL_AGAIN_S
            if self._go is not None:
                self._go.forget_unused()
        there = {int(name) for name in os.listdir(self._proc) if name.isdigit()}  # noqa: PTH208
        self._seen_s = {pid: s for pid, s in self._seen_s.items() if pid in there}
        for pid in self.unread.keys() - there:
            self.unread.pop(pid)
        for pid in sorted(there):
            seen_s = self._seen_s.setdefault(pid, now_s)
            if (again or now_s - seen_s < _YOUNG_S) and self._is_wanted(pid):
                yield pid

    def _is_wanted(self, pid: int) -> bool:
        folder = self._proc / str(pid)
        found = not (self._names or self._cgroups)
        with contextlib.suppress(OSError, IndexError, ValueError):
            program = (folder / "cmdline").read_bytes().split(b"\0")[0]
            if not program:
                return False  # the kernel's own, or it has ended
            if self._names:
                comm = os.fsdecode((folder / "comm").read_bytes().rstrip(b"\n"))
                called = comm, os.path.basename(os.fsdecode(program))  # noqa: PTH119
                found = any(fnmatch.fnmatchcase(c, n) for c in called for n in self._names)
            if not found and self._cgroups:
                lines = (folder / "cgroup").read_text("utf-8", "surrogateescape").splitlines()
                own = [line.split(":", 2)[2] for line in lines]
                found = any(f"{path}/".startswith(f"{c}/") for path in own for c in self._cgroups)
            # Neither the watch itself, nor what it has started.
            stat = (folder / "stat").read_text("utf-8", "surrogateescape")
            parent = int(stat.rpartition(")")[2].split()[1])
            return found and os.getpid() not in (pid, parent)
        return False


def _cgroup(path: str) -> str:
    """Below the root of all cgroups, however it was named."""
    inside = os.path.normpath(path)
    for mount in (f"{_CGROUPS}/unified", _CGROUPS):
        if inside == mount or inside.startswith(f"{mount}/"):
            inside = inside[len(mount) :]
            break
    return "/" + inside.strip("/") if inside.strip("/") else ""
