"""The base of a workload: a name, parameters in a dataclass, and a first goroutine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reference_runtime.locks import Counter

Result = dict[str, object]


@dataclass(kw_only=True)
class Workload:
    """A program to compare retake policies on.

    A subclass adds its parameters as fields and says what it does in its docstring, whose first
    line the command shows.
    """

    name: ClassVar[str]
    not_zero: ClassVar[frozenset[str]] = frozenset()
    """Parameters of which 0 means nothing; the others are at least 0."""
    seconds: float = 2.0
    """How long to run, unless ``rounds`` says how far."""
    rounds: int | None = None
    """How many rounds to run; a round is what the workload says it is."""
    seed: int = 0

    def check(self, policy: str, procs: int) -> None:
        """Refuse what cannot work.

        Raises:
            PretakeError: this workload cannot run so.
        """

    async def main(self) -> Result:
        """Run as the first goroutine; what was measured, times as distributions in ns."""
        raise NotImplementedError

    def limit_ns(self) -> int:
        """When loops without an end are to end; -1 where there are none."""
        return -1

    def over(self, rounds: int, now_ns: int, begin_ns: int) -> bool:
        """Whether to stop after so many rounds at this time."""
        if self.rounds is not None:
            return rounds >= self.rounds
        return now_ns - begin_ns >= self.seconds * 1e9

    def begins(self, rounds: Counter, now_ns: int, begin_ns: int) -> bool:
        """Whether to do one more round, which is counted then: for workers on several threads."""
        if not self.over(rounds.add(1) - 1, now_ns, begin_ns):
            return True
        rounds.add(-1)
        return False
