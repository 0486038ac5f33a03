"""The error for a program in which no goroutine will ever run again."""

from __future__ import annotations

from reference_runtime.gmp import G


class Deadlock(Exception):  # noqa: N818  the field's word
    """All goroutines are asleep.

    Args:
        waiting: a line for each goroutine: its id, name, what it waits for and where.
    """

    def __init__(self, waiting: list[str]) -> None:
        self.waiting = waiting
        super().__init__(
            "\n".join(
                ["all goroutines are asleep - deadlock!", *(f"  {line}" for line in waiting)]
            )
        )


def describe(g: G) -> str:
    """``goroutine 3 [worker]: chan receive, at app.py:12 in worker``."""
    place = where(g.coro)
    return f"goroutine {g.goid} [{g.name}]: {g.wait_reason or 'not waiting'}" + (
        f", at {place}" if place else ""
    )


def where(coro: object) -> str:
    """The innermost place of a suspended coroutine that has a Python frame; empty if none has.

    Compiled coroutines have no frame, so for those it is the caller's place that is told.
    """
    place = ""
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        if frame is not None:
            code = frame.f_code
            place = f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)
    return place
