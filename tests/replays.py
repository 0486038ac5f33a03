"""A simulator that keeps what it played, for tests of replays whose columns may be withheld."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.whatif.predict import Machine, Replay
from analysis.whatif.scripts import Goroutine
from pretake.commands.whatif import play


class Kept:
    """Plays scripts, as ``pretake whatif`` does; ``last`` has the last replay of each policy."""

    def __init__(self) -> None:
        self.last: dict[str, Replay] = {}

    def __call__(
        self, goroutines: Sequence[Goroutine], policy: str, machine: Machine, max_ns: int
    ) -> Replay | None:
        """Play them."""
        found = play(goroutines, policy, machine, max_ns)
        if found is not None:
            self.last[policy] = found
        return found
