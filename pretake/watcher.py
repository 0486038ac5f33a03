"""What a program that is watched has told so far, for ``pretake live`` and ``pretake watch``."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.answers.going import GoingPressure
from analysis.answers.live import Call, CallSites
from analysis.names import syscall_names
from tracer.trace.records import joined
from tracer.trace.schema import TABLES

if TYPE_CHECKING:
    from analysis.answers.pressure import ProcessPressure
    from tracer.capture.live import Live, LiveRows

__all__ = ["Watcher", "forget_early"]

_EARLY = 3
"""Periods whose rows are kept whole while no runtime was found."""
_LIVES_MOST = 60
"""Older ones whose lives are kept apart."""
_EXIT = TABLES["task"].column("kind").code("exit")
_THREADS_MOST = 50_000
"""The pass begins again when it has heard of so many: a watch of weeks may see millions."""


class Watcher:
    """What was counted, by name; asked by the screen and, on another thread, by Prometheus.

    Args:
        watched: gives counts and rows.
        exact: whether uprobes tell the transitions of its runtime.
        on_settled: is given what the pass settles of its rows (:class:`GoingPressure`).
    """

    def __init__(
        self,
        watched: Live,
        exact: bool,
        on_settled: Callable[[str, Mapping[str, np.ndarray]], None] | None = None,
    ) -> None:
        self._watched = watched
        self._exact = exact
        self._on_settled = on_settled
        self._going: GoingPressure | None = None
        self._early: list[LiveRows] = []
        self._lock = threading.Lock()
        self.sites = CallSites(platform.machine())

    def look(self) -> dict[Call, np.ndarray]:
        """Counts since the begin, by call."""
        # Only 'live' asks; a watch of weeks is spared what it needs: pandas.
        from analysis.answers.places import places_of

        with self._lock:
            counts = self._watched.counts()
            new = self._watched.new_stacks()
            if new:
                self.sites.learn(places_of(new["stack"].to_pandas(), new["address"].to_pandas()))
            return self.sites.sum(counts)

    def unknown(self) -> dict[str, int]:
        """Ps that were taken, by system call, nobody knows how long after the block."""
        with self._lock:
            told = self._watched.unknown()
        names = syscall_names(list(told), platform.machine())
        return dict(zip(map(str, names), told.values(), strict=True))

    def step(self, last: bool) -> None:
        """Take the rows that came, where any do; called by the thread that waits for them."""
        rows = self._watched.rows(last)
        if rows is None:
            return
        runtime = self._watched.runtime
        with self._lock:
            if self._going is None and runtime == "none":
                # Which of them tells what: until it is known, they wait.
                self._early = forget_early([*self._early, rows])
                return
            if self._going is None:
                self._going = GoingPressure(
                    self._watched.begin_ns, runtime, self._exact, self._on_settled
                )
            elif self._going.threads > _THREADS_MOST:
                self._going = self._going.renewed()
            for piece in (*self._early, rows):
                self._going.feed(piece.records, piece.tables, piece.until_ns)
            self._early = []
            if last:
                self._going.finish()

    def pressure(self) -> list[ProcessPressure]:
        """Stall time by cause of each process, of what is settled."""
        with self._lock:
            return [] if self._going is None else self._going.told()


def forget_early(pieces: list[LiveRows]) -> list[LiveRows]:
    """Of rows before any runtime was found: the last ones, and of older ones who lives.

    No P is in reach then, so all else would only fill the memory of who watches no Go program.
    """
    older, newer = pieces[:-_EARLY], pieces[-_EARLY:]
    lives = [
        replace(piece, records={"task": piece.records["task"]}, tables={})
        for piece in older
        if piece.records.get("task")
    ]
    if len(lives) > _LIVES_MOST:
        tasks = joined([part for piece in lives for part in piece.records["task"]])
        lives = [replace(lives[-1], records={"task": [_living(tasks)]})]
    return [*lives, *newer]


def _living(tasks: np.ndarray) -> np.ndarray:
    """Of records of table task, in the order in which they came: the last one of each thread
    that lives."""
    _, from_end = np.unique(tasks["tid"][::-1], return_index=True)
    last = tasks[np.sort(len(tasks) - 1 - from_end)]
    return np.asarray(last[last["kind"] != _EXIT])
