"""What the machine did while a run was captured: load, steal and frequency, from /proc."""

from __future__ import annotations

from pathlib import Path

from tracer.trace.manifest import Machine

__all__ = ["MachineWatch"]

_PROC = Path("/proc")
_IDLE, _IOWAIT, _STEAL = 3, 4, 7
_TIMES = 8
"""Of the first line of ``/proc/stat``: user, nice, system, idle, iowait, irq, softirq, steal;
guest time, behind them, is in user already (fs/proc/stat.c)."""


class MachineWatch:
    """Looks at the machine from here on.

    Args:
        proc: where to look.
    """

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._load_begin = self._load()
        self._before = self._times()

    def finish(self) -> Machine:
        """What it did since; None for what cannot be read."""
        times = self._times()
        machine = Machine(load_begin=self._load_begin, load_end=self._load(), mhz=self._mhz())
        if self._before is not None and times is not None:
            spent = [after - before for before, after in zip(self._before, times, strict=True)]
            total = sum(spent)
            if total > 0:
                idle = spent[_IDLE] + spent[_IOWAIT]
                machine.busy_share = (total - idle) / total
                machine.steal_share = spent[_STEAL] / total
        return machine

    def _load(self) -> float | None:
        try:
            return float((self._proc / "loadavg").read_text("utf-8", "surrogateescape").split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _times(self) -> list[int] | None:
        try:
            line = (self._proc / "stat").read_text("utf-8", "surrogateescape").split("\n", 1)[0]
            times = [int(word) for word in line.split()[1 : 1 + _TIMES]]
        except (OSError, ValueError):
            return None
        return times if len(times) == _TIMES else None

    def _mhz(self) -> float | None:
        """The mean of what the CPUs tell; virtual machines and arm64 tell none, or one for all."""
        found = []
        try:
            for line in (self._proc / "cpuinfo").read_text("utf-8").splitlines():
                name, _, value = line.partition(":")
                if name.strip() == "cpu MHz":
                    found.append(float(value))
        except (OSError, ValueError):
            return None
        return sum(found) / len(found) if found else None
