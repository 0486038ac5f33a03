"""What ``pretake live`` says of retakes whose length nobody knows."""

from __future__ import annotations

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest

from pretake.commands.live import _unknown_text
from pretake.prometheus import _Counted
from pretake.watcher import forget_early
from tracer.capture.live import LiveRows
from tracer.trace.schema import TABLES


def test_retakes_of_unknown_length_are_told_beside_the_table() -> None:
    assert _unknown_text({}) == []
    (line,) = _unknown_text({"read": 1_234, "futex": 2})
    assert line.endswith("counted in no row: 2 of futex, 1,234 of read")


def test_they_are_a_counter_of_their_own() -> None:
    registry = CollectorRegistry()
    registry.register(_Counted(dict, 3, lambda: {"read": 7}))
    page = generate_latest(registry).decode()
    assert 'pretake_retake_unknown_total{syscall="read"} 7.0' in page
    assert "pretake_retake_seconds_bucket" not in page


def test_rows_before_any_runtime_do_not_pile_up() -> None:
    """A hundred periods with a switch in each, and a thread in the first one."""
    switch, task = (
        TABLES[name].to_arrow(np.zeros(1, TABLES[name].dtype)) for name in ("sched_switch", "task")
    )
    kept: list[LiveRows] = []
    for period in range(100):
        tables = {"sched_switch": switch} if period else {"sched_switch": switch, "task": task}
        kept = forget_early([*kept, LiveRows(period, tables)])
    assert [(piece.until_ns, sorted(piece.tables)) for piece in kept] == [
        (0, ["task"]),
        *((period, ["sched_switch"]) for period in (97, 98, 99)),
    ]
