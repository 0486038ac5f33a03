"""Episodes and the pass from one reading of a trace, for whoever wants both.

The pass settles what a hold cost about a second after the loop over episodes is over with it, so
episodes wait here until then. What waits is what a second or two of the trace has, however long
the trace is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from analysis.ptime.budget import PassRunner
from analysis.ptime.engine.rows import NEVER
from analysis.ptime.episodes import EpisodeStream, PlainEpisodes, Setting
from analysis.ptime.harm import KEPT, Shares
from analysis.ptime.packed import Packed
from analysis.windowed.asof import Ints
from analysis.windowed.columns import TIME_COLUMN, ColumnWindow

__all__ = ["EpisodesAlong"]

_AT_ONCE = 1 << 15
"""Episodes that are finished together: fewer cost more calls, more cost more memory."""

_TABLES = ("block", "syscall", "runtime", "task", "sched_wakeup", "sched_switch")
"""Those that the loop over episodes reads; the pass reads others, too, which may end later."""


class EpisodesAlong:
    """Makes episodes beside a pass (:func:`analysis.ptime.budget.run_pass`).

    Args:
        setting: of the trace.
        columns: those wanted of :data:`analysis.schema.EPISODES`.
        on_episodes: takes them, piece by piece, in no order.
    """

    def __init__(
        self,
        setting: Setting,
        columns: Sequence[str],
        on_episodes: Callable[[PlainEpisodes], None],
    ) -> None:
        self._stream = EpisodeStream(setting, columns)
        self._on_episodes = on_episodes
        self._over: list[dict[str, Ints]] = []
        self._news = 0
        self._holds: list[dict[str, Ints]] = []

    def add_holds(self, holds: dict[str, Ints]) -> None:
        """Take the holds that the pass has settled."""
        if len(holds["tid"]):
            self._holds.append({name: holds[name] for name in KEPT})

    def window(self, window: ColumnWindow, packed: Sequence[Packed], runner: PassRunner) -> None:
        """Take the rows of a window that the pass has taken."""
        times = [window.tables[n][TIME_COLUMN[n]] for n in _TABLES if n in window.tables]
        until_ns = max((int(own[-1]) for own in times if len(own)), default=0)
        self._stream.take(packed, window.tables.get("block"), until_ns)
        self._keep()
        if self._news >= _AT_ONCE:
            self._finish(runner.settled_ns, runner.open_holds())

    def end(self) -> None:
        """The pass is over, and has given all its holds."""
        self._stream.end()
        self._keep()
        self._finish(NEVER, ())

    def _keep(self) -> None:
        over = self._stream.over()
        if len(over["serial"]):
            self._over.append(over)
            self._news += len(over["serial"])

    def _finish(self, until_ns: int, going: Iterable[tuple[int, int]]) -> None:
        """Finish those whose holds are settled: up to a moment, but for those that still go on."""
        self._news = 0
        going = [*going]
        ready: list[dict[str, Ints]] = []
        waiting: list[dict[str, Ints]] = []
        # Most pieces lie wholly on one side, and are not copied.
        for piece in self._over:
            done = _settled(piece, until_ns, going)
            for chosen, into in ((done, ready), (~done, waiting)):
                if chosen.all():
                    into.append(piece)
                elif chosen.any():
                    into.append(_rows(piece, chosen))
        self._over = waiting
        if not ready:
            return
        holds = _together(self._holds) if self._holds else _NONE
        self._on_episodes(self._stream.finish(_together(ready), Shares.of(holds)))
        # What is settled of an episode that is not finished: of one that goes on, for a long time.
        asked = [self._stream.open_ns(), *(piece["block_ns"] for piece in waiting)]
        asked_ns = np.concatenate([ns[ns <= until_ns] for ns in asked])
        self._holds = [_rows(holds, np.isin(holds["block_ns"], asked_ns))]


_NONE = {name: np.empty(0, np.int64) for name in KEPT}


def _settled(
    piece: Mapping[str, Ints], until_ns: int, going: Iterable[tuple[int, int]]
) -> npt.NDArray[np.bool_]:
    done: npt.NDArray[np.bool_] = piece["block_ns"] <= until_ns
    for tid, block_ns in going:
        done &= (piece["block_ns"] != block_ns) | (piece["tid"] != tid)
    return done


def _rows(columns: Mapping[str, Ints], chosen: npt.NDArray[np.bool_]) -> dict[str, Ints]:
    return {name: values[chosen] for name, values in columns.items()}


def _together(pieces: Sequence[dict[str, Ints]]) -> dict[str, Ints]:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
