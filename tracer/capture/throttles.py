"""Table throttle: how long CPU quotas kept the targets' threads off the CPUs.

The scheduler's events do not show it: a thread whose cgroup has used up ``cpu.max`` looks like any
other thread that waits for a CPU. Only the cgroup counts it (``throttled_usec`` in ``cpu.stat``,
in cgroup v1 ``throttled_time`` in ns), so its counter is read every 0.1 s. Any cgroup on the way
to the root may have the quota. All of them are read, and the row has the one that throttled most.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from tracer.trace.columns import column_array, text_array
from tracer.trace.schema import TABLES

__all__ = ["PERIOD_NS", "Throttles"]

PERIOD_NS: Final = 100_000_000
"""How far apart the questions are: the period of a quota, as the kernel has it by default."""

_QUIET_NS: Final = 10_000_000_000
"""What is told of quotas that take nothing may be as old as this."""

_KIND = TABLES["task"].column("kind")
_BEGINS: Final = tuple(_KIND.code(word) for word in ("present", "exec", "fork"))
_EXIT: Final = _KIND.code("exit")
_FIELDS: Final = {b"throttled_usec": 1000, b"throttled_time": 1}
_PROC: Final = Path("/proc")


@dataclass
class _Asked:
    """One process: when it was asked of last, and what its cgroups had taken by then."""

    since_ns: int
    taken_ns: dict[str, int] = field(default_factory=dict)


class _Row(NamedTuple):
    """A row of the table."""

    begin_ns: int
    end_ns: int
    throttled_ns: int
    cgroup: str
    pid: int


class Throttles:
    """Asks for the processes that it hears of.

    Args:
        proc: where processes and mounts are told.
    """

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._mount, self._controller = _hierarchy(proc)
        self._processes: dict[int, _Asked | None] = {}
        self._rows: list[_Row] = []
        self._last: dict[int, int] = {}
        """Where in the rows the last one of each process stands."""
        self._next_ns = 0

    def on_tasks(self, records: np.ndarray) -> None:
        """Hear who began and who ended (records of table task)."""
        for kind, tid, pid in zip(
            *(records[name].tolist() for name in ("kind", "tid", "pid")), strict=True
        ):
            if kind in _BEGINS:
                self._processes.setdefault(pid, None)
            elif kind == _EXIT and tid == pid:
                self._processes.pop(pid, None)

    def step(self, now_ns: int) -> None:
        """Ask, if it is time to (CLOCK_MONOTONIC)."""
        if self._mount is None or now_ns < self._next_ns:
            return
        self._next_ns = now_ns + PERIOD_NS
        # Processes of one cgroup share its answer.
        told: dict[bytes, dict[str, int]] = {}
        for pid, asked in self._processes.items():
            self._processes[pid] = self._ask(pid, asked, now_ns, told)

    def table(self, now_ns: int) -> pa.Table:
        """Ask once more, and give all rows."""
        self._next_ns = 0
        self.step(now_ns)
        return self.take()

    def __len__(self) -> int:
        """How many rows :meth:`take` would give."""
        return len(self._rows)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing needs to be told yet: no quota took anything in the last seconds.

        Rows that wait become longer, so a program without throttling has one every 10 s.
        """
        if not self._rows:
            return True
        waited_ns = self._next_ns - self._rows[0].begin_ns
        return waited_ns < _QUIET_NS and not any(row.throttled_ns for row in self._rows)

    def take(self) -> pa.Table:
        """The rows since the last time."""
        rows, self._rows, self._last = self._rows, [], {}
        table = TABLES["throttle"]
        names = [column.name for column in table.columns]
        columns = dict(
            zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True)
        )
        arrays = [
            text_array(columns[column.name])
            if column.is_text
            else column_array(column, np.array(columns[column.name], column.numpy_type))
            for column in table.columns
        ]
        return pa.Table.from_arrays(arrays, schema=table.arrow_schema)

    def _ask(
        self, pid: int, asked: _Asked | None, now_ns: int, told: dict[bytes, dict[str, int]]
    ) -> _Asked | None:
        text = _read(f"{self._proc}/{pid}/cgroup")
        if text not in told:
            told[text] = self._taken_ns(text)
        taken = told[text]
        if not taken:
            return asked
        if asked is not None:
            # A cgroup that it was not in before has taken from others.
            since = {cgroup: ns - asked.taken_ns.get(cgroup, ns) for cgroup, ns in taken.items()}
            most = max(since, key=since.__getitem__)
            self._tell(_Row(asked.since_ns, now_ns, max(since[most], 0), most, pid))
        return _Asked(now_ns, taken)

    def _tell(self, row: _Row) -> None:
        """Add a row. One of a quota that takes nothing makes such a one before it longer.

        So a day without throttling is one row for each process, not 864,000.
        """
        at = self._last.get(row.pid)
        before = None if at is None else self._rows[at]
        if (
            at is not None
            and before is not None
            and before.throttled_ns == row.throttled_ns == 0
            and (before.end_ns, before.cgroup) == (row.begin_ns, row.cgroup)
        ):
            self._rows[at] = before._replace(end_ns=row.end_ns)
            return
        self._last[row.pid] = len(self._rows)
        self._rows.append(row)

    def _taken_ns(self, text: bytes) -> dict[str, int]:
        """What the quotas of a process's cgroup, and of those above it, have taken so far.

        Args:
            text: its /proc/PID/cgroup.

        Returns:
            By cgroup, itself first; empty where it is not to be seen from here.
        """
        taken: dict[str, int] = {}
        for line in os.fsdecode(text).splitlines():
            _, controllers, path = line.split(":", 2)
            if self._controller not in controllers.split(","):
                continue
            # One beside the namespace's root is told by a way up, which leads nowhere here.
            while not path.startswith("/.."):
                ns = _throttled_ns(f"{self._mount}{path}/cpu.stat")
                if ns is not None:
                    taken[path] = ns
                if path == "/":
                    break
                path = path.rpartition("/")[0] or "/"
            break
        return taken


def _hierarchy(proc: Path) -> tuple[Path | None, str]:
    """Where the hierarchy is mounted that knows of quotas, and its name in /proc/PID/cgroup."""
    found: dict[str, Path] = {}
    try:
        lines = (proc / "self" / "mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None, ""
    for line in lines:
        place, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        mount = Path(place.split(" ")[4])
        if kind == "cgroup" and "cpu" in options.split(","):
            found.setdefault("cpu", mount)
        elif kind == "cgroup2":
            found.setdefault("", mount)
    for controller in ("cpu", ""):
        if controller in found:
            return found[controller], controller
    return None, ""


def _throttled_ns(path: str | Path) -> int | None:
    """What a cgroup's quota has taken so far; None where its cpu.stat counts no such thing."""
    for line in _read(path).splitlines():
        name, _, value = line.partition(b" ")
        if name in _FIELDS and value.isdigit():
            return int(value) * _FIELDS[name]
    return None


def _read(path: str | Path) -> bytes:
    """A small file of the kernel; empty where it cannot be read.

    It is asked ten times a second for each process, where a path object costs more than the file.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(file, 1 << 16)
    except OSError:
        return b""
    finally:
        os.close(file)
