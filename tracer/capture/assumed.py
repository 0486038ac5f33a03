"""Programs whose offsets are another Go version's: none is read before a process confirmed them.

Example: a stripped server of go1.27.5, for which the shipped table has no row. It is attached, and
its memory is found to be as the row of go1.27.3 says: so it is in reach. A program that has just
begun has no runtime yet; it is looked at again and again, and in reach as soon as its first
goroutine runs. Other processes of a confirmed program are in reach from their exec on. Until then,
and where it is refused, what needs no offset is told all the same, as of any unknown version.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tracer.capture.binaries import Known
from tracer.capture.images import Image
from tracer.capture.memory import Chain
from tracer.capture.target_files import TargetFiles
from tracer.targets.go import GO_FIELDS, GoBinary
from tracer.targets.layout import RuntimeLayout
from tracer.targets.self_check import SelfCheck
from tracer.trace.manifest import Missing
from tracer.trace.unknown import UNKNOWN

__all__ = ["Assumed", "ProcessMemory"]

_FIRST_WAIT_S: Final = 0.001
_LONGEST_WAIT_S: Final = 0.05
_OFTEN: Final = 60
"""Looks at a process after which it is looked at more and more seldom: it stands idle."""
_SELDOM_WAIT_S: Final = 1.0
_LOOKS: Final = 4
"""Processes that are looked at in one step, some ms each."""
_NOTHING: Final = "block, and p, m and goid of runtime"
_MEND: Final = "build it without -s and -w, so that its own debug information tells"


@dataclass
class _Checked:
    """A process that is looked at, and when it will be again."""

    image: Image
    known: Known
    bias: int
    check: SelfCheck
    due_s: float = 0.0
    wait_s: float = _FIRST_WAIT_S
    looks: int = 0


@dataclass(frozen=True)
class ProcessMemory:
    """One process's memory, as a check reads it (:class:`tracer.targets.self_check.Memory`).

    Args:
        files: reads it.
        pid: the process.
    """

    files: TargetFiles
    pid: int

    def words(self, chains: Sequence[Chain]) -> list[list[int]]:
        """As :func:`tracer.capture.memory.follow`."""
        return self.files.words(self.pid, chains)

    def caught(self, groups: Sequence[Sequence[Chain]]) -> tuple[int, list[list[int]]] | None:
        """As :func:`tracer.capture.memory.caught`."""
        return self.files.caught(self.pid, groups)

    def threads(self) -> set[int]:
        """As :func:`tracer.capture.memory.thread_numbers`."""
        return set(self.files.threads(self.pid))


class Assumed:
    """Checks processes until their program is confirmed or refused.

    Args:
        files: reads the memory of processes.
    """

    def __init__(self, files: TargetFiles) -> None:
        self._files = files
        self._waiting: list[_Checked] = []
        # By the address of what is known; each is kept, so that none is another's.
        self._confirmed: dict[int, Known] = {}
        self._told_ns: dict[int, int] = {}
        self._refused: dict[int, tuple[Known, str]] = {}
        self._undecided: Counter[tuple[int, str, str, str]] = Counter()

    def holds(self, known: Known) -> bool:
        """Whether nothing may be read of a program yet."""
        binary = known.binary
        return isinstance(binary, GoBinary) and binary.assumed and id(known) not in self._confirmed

    def layout_of(self, known: Known) -> RuntimeLayout:
        """Where a program has its runtime, without what may not be read yet."""
        assert known.binary is not None
        layout = known.binary.layout
        if not self.holds(known):
            return layout
        nothing = dict.fromkeys(GO_FIELDS, UNKNOWN)
        return dataclasses.replace(layout, sched=UNKNOWN).with_offsets(nothing)

    def told(self, known: Known) -> None:
        """From now on a process of a confirmed program is in reach from its exec on."""
        self._told_ns[id(known)] = time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def in_reach(self, known: Known, exec_ns: int) -> bool:
        """Whether one was exec'd with all of its layout in place, if it had a layout at all."""
        binary = known.binary
        if not isinstance(binary, GoBinary) or not binary.assumed:
            return True
        told_ns = self._told_ns.get(id(known))
        return told_ns is not None and told_ns <= exec_ns

    def add(self, image: Image, known: Known, bias: int) -> None:
        """Check a process of a program that :meth:`holds`."""
        assert known.binary is not None
        if id(known) not in self._refused:
            check = SelfCheck(known.binary.layout.at(bias))
            self._waiting.append(_Checked(image, known, bias, check))

    def ended(self, image: Image) -> None:
        """A process is no more, or is another program."""
        for checked in self._waiting:
            if checked.image is image:
                self._undecided[_undecided(checked)] += 1
        self._waiting = [checked for checked in self._waiting if checked.image is not image]

    @property
    def wait_s(self) -> float:
        """Seconds until a process is due; infinite where none is."""
        due_s = min((checked.due_s for checked in self._waiting), default=float("inf"))
        return max(due_s - time.monotonic(), 0.0)

    def step(self) -> list[tuple[Image, Known, int]]:
        """Look at what is due.

        Returns:
            Processes that may be read from now on, with their program and its bias.
        """
        now_s = time.monotonic()
        due = [checked for checked in self._waiting if checked.due_s <= now_s]
        for checked in sorted(due, key=lambda checked: checked.due_s)[:_LOOKS]:
            if id(checked.known) in self._confirmed or id(checked.known) in self._refused:
                continue
            checked.looks += 1
            checked.due_s = now_s + checked.wait_s
            longest_s = _LONGEST_WAIT_S if checked.looks < _OFTEN else _SELDOM_WAIT_S
            checked.wait_s = min(2 * checked.wait_s, longest_s)
            try:
                checked.check.look(ProcessMemory(self._files, checked.image.pid))
            except OSError:
                # It has ended, which its record will tell; or it may not be read.
                continue
            if checked.check.passed:
                self._confirmed[id(checked.known)] = checked.known
            elif checked.check.refused is not None:
                self._refuse(checked.known, checked.check.refused)
        passed = [c for c in self._waiting if id(c.known) in self._confirmed]
        self._waiting = [c for c in self._waiting if id(c.known) not in self._confirmed]
        return [(c.image, c.known, c.bias) for c in passed]

    @property
    def missing(self) -> list[Missing]:
        """Programs and processes that were not read up to now, and why."""
        left = self._undecided + Counter(map(_undecided, self._waiting))
        refused = [
            Missing(
                _NOTHING,
                f"{known.name} was not read: {why}, so its offsets are not those {_of(known)}",
                _MEND,
            )
            for known, why in self._refused.values()
        ]
        undecided = [
            Missing(
                # Of a program that was confirmed later some processes only are not read.
                f"{'the runtime' if known in self._confirmed else _NOTHING}"
                f" in {count} process{'es' * (count > 1)} of {name}",
                f"the offsets {of} could not be confirmed: {why}",
                _MEND,
            )
            for (known, name, of, why), count in left.items()
        ]
        return refused + undecided

    def _refuse(self, known: Known, why: str) -> None:
        self._refused[id(known)] = known, why
        self._waiting = [checked for checked in self._waiting if checked.known is not known]


def _undecided(checked: _Checked) -> tuple[int, str, str, str]:
    return id(checked.known), checked.known.name, _of(checked.known), checked.check.open


def _of(known: Known) -> str:
    """``assumed from go1.27.3``."""
    assert isinstance(known.binary, GoBinary)
    return known.binary.offsets_from or ""
