"""The errors for a run that ends before its program does: deadlock, time limit."""

from __future__ import annotations

from reference_runtime.gmp import G_RUNNABLE, G_RUNNING, G_SYSCALL, G

DOES = {G_RUNNABLE: "runnable", G_RUNNING: "running", G_SYSCALL: "in a system call"}
"""By status, what is told of a goroutine that does not wait."""


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


class TimeLimit(Exception):  # noqa: N818  it is told as an end
    """The run was ended at its time limit.

    Args:
        limit_ns: the limit.
        goroutines: a line for each goroutine: its id, name, what it does and where.
    """

    def __init__(self, limit_ns: int, goroutines: list[str]) -> None:
        self.goroutines = goroutines
        super().__init__(
            "\n".join(
                [
                    f"the time limit of {limit_ns / 1e9:g} s is over (--seconds)",
                    *(f"  {line}" for line in goroutines),
                ]
            )
        )


def describe(g: G) -> str:
    """``goroutine 3 [worker]: chan receive, at app.py:12 in worker``."""
    place = where(g.coro)
    does = DOES.get(int(g.status)) or g.wait_reason or "not waiting"
    return f"goroutine {g.goid} [{g.name}]: {does}" + (f", at {place}" if place else "")


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
