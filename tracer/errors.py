"""The one error a user can cause, and its exit status."""

from __future__ import annotations

__all__ = ["EXIT_STATUS", "PretakeError"]

EXIT_STATUS = 2


class PretakeError(Exception):
    """A mistake or a lack that the user can mend.

    Args:
        problem: what is wrong, one line without a full stop.
        mend: what to do about it, one line; empty when there is nothing to do.

    The command prints it as one line and exits with :data:`EXIT_STATUS`; nothing else that
    reaches the command is meant for the user.
    """

    def __init__(self, problem: str, mend: str = "") -> None:
        self.problem = problem
        self.mend = mend
        super().__init__(f"{problem}: {mend}" if mend else problem)

    def __reduce__(self) -> tuple[type[PretakeError], tuple[str, str]]:
        """As it was made: it may come from another process."""
        return type(self), (self.problem, self.mend)
