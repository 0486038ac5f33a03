"""When a dump is begun, waited for, and written: one at a time, on a thread of its own.

Example: a rule holds at 03:15:02. The dump is *pending* until 03:15:07, because it is to have 5 s
after it. Then it is *written*, while the watch goes on. A trigger at 03:15:04 joins the dump that
is pending; one at 03:15:08 begins the next one, if the hour has one left.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import pyarrow as pa

from tracer.capture.dumps import Dumps
from tracer.capture.flight import Fetch, Flight
from tracer.capture.frozen import FLIGHT, Frozen
from tracer.capture.watch import LATE_NS
from tracer.capture.window import Window
from tracer.errors import PretakeError
from tracer.trace.manifest import Missing

__all__ = ["Decision", "Recorder", "Watched"]

_SECOND_NS: Final = 1_000_000_000


class Watched(Protocol):
    """What a recorder needs of a :class:`~tracer.capture.watch.Watch`."""

    window: Window

    @property
    def now_ns(self) -> int:
        """The time, CLOCK_MONOTONIC."""

    def freeze(self, begin_ns: int, end_ns: int, about: dict[str, object]) -> Frozen:
        """What a dump of a span is made of."""


@dataclass(frozen=True)
class Decision:
    """What became of a trigger.

    Args:
        name: of the dump that has it, or will have; None for none.
        refused: why there is none; empty where there is one.
        joined: another trigger had begun that dump.
    """

    name: str | None
    refused: str = ""
    joined: bool = False


@dataclass
class _Dump:
    name: str
    reason: str
    event_ns: int
    end_ns: int
    flight: Fetch | None = None
    nbytes: int = 0
    problem: str = ""


class Recorder:
    """Writes dumps of what is watched.

    Args:
        watched: gives the rows.
        dumps: where they go.
        before_s: seconds before a trigger.
        after_s: seconds after it.
        on_written: is given the name of each dump that is whole.
        flight: where the program's own flight recorder gives its window, if it has one.

    Attributes:
        counts: triggers by what became of them: ``written``, ``joined``, ``refused``, ``failed``.
        last: name of the last dump that was written; None for none.
    """

    def __init__(
        self,
        watched: Watched,
        dumps: Dumps,
        before_s: float,
        after_s: float,
        on_written: Callable[[str], None] | None = None,
        flight: Flight | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter(written=0, joined=0, refused=0, failed=0)
        self.last: str | None = None
        self._watched = watched
        self._dumps = dumps
        self._flight = flight
        self._before_ns = round(before_s * _SECOND_NS)
        self._after_ns = round(after_s * _SECOND_NS)
        self._on_written = on_written
        self._pending: _Dump | None = None
        self._writing: tuple[threading.Thread, _Dump] | None = None
        self._refusing = False
        self._lines: list[str] = []

    def trigger(self, reason: str, event_ns: int | None = None) -> Decision:
        """Something happened that is to be looked at.

        Args:
            reason: what, in words.
            event_ns: when, CLOCK_MONOTONIC; None for now.
        """
        now_ns = self._watched.now_ns
        if self._pending is not None:
            self.counts["joined"] += 1
            return Decision(self._pending.name, joined=True)
        now_s = time.monotonic()
        refused = self._dumps.refusal(now_s)
        if refused is not None:
            self.counts["refused"] += 1
            if not self._refusing:
                self._lines.append(f"no dump for '{reason}': {refused}")
            # Once: a rule may hold all night.
            self._refusing = True
            return Decision(None, refused)
        self._refusing = False
        event_ns = now_ns if event_ns is None else min(event_ns, now_ns)
        name = self._dumps.begin(now_s)
        # Now: its window ends here, and goes on.
        flight = None if self._flight is None else self._flight.begin()
        self._pending = _Dump(name, reason, event_ns, now_ns + self._after_ns, flight)
        self._watched.window.keep_ns = event_ns - self._before_ns
        return Decision(name)

    def step(self) -> list[str]:
        """Begin to write what is due, and tell what was written; call it often.

        Returns:
            Lines for whoever reads them.
        """
        self._settle()
        pending = self._pending
        if (
            pending is not None
            and self._writing is None
            and self._watched.now_ns >= pending.end_ns + LATE_NS
        ):
            self._write(pending)
        lines, self._lines = self._lines, []
        return lines

    def finish(self) -> list[str]:
        """The watch ends: write what is pending, as far as it came, and wait for it."""
        if self._writing is not None:
            self._writing[0].join()
            self._settle()
        if self._pending is not None:
            self._pending.end_ns = min(self._pending.end_ns, self._watched.now_ns)
            self._write(self._pending)
            assert self._writing is not None
            self._writing[0].join()
        return self.step()

    def _write(self, dump: _Dump) -> None:
        about: dict[str, object] = {"trigger": dump.reason, "trigger_ns": dump.event_ns}
        frozen = self._watched.freeze(dump.event_ns - self._before_ns, dump.end_ns, about)
        self._pending = None
        self._watched.window.keep_ns = None
        thread = threading.Thread(
            target=self._run, args=(frozen, dump), name="pretake-dump", daemon=True
        )
        self._writing = thread, dump
        thread.start()

    def _run(self, frozen: Frozen, dump: _Dump) -> None:
        try:
            # Parquet takes less than the records do.
            frozen = self._with_flight(frozen, dump)
            self._dumps.make_room(sum(piece.nbytes for piece in frozen.slices))
            frozen.write(self._dumps.making(dump.name))
            dump.nbytes = self._dumps.finish(dump.name)
        except PretakeError as error:
            dump.problem = str(error).replace(str(self._dumps.making(dump.name)), dump.name)
            self._dumps.remove(f".{dump.name}")
        except Exception as error:  # a watch of weeks outlives a dump that cannot be made
            dump.problem = f"{type(error).__name__}: {error}"
            self._dumps.remove(f".{dump.name}")

    def _with_flight(self, frozen: Frozen, dump: _Dump) -> Frozen:
        """The same, with what Go's own recorder gave of it; or with why it gave nothing."""
        if dump.flight is None:
            return frozen
        age_s = (self._watched.now_ns - frozen.begin_ns) / 1e9
        data, problem = dump.flight.take(time.time() - age_s)
        if problem:
            mend = "see that --flight names what the program serves or writes"
            frozen.manifest.missing.append(Missing(FLIGHT, problem, mend))
        return dataclasses.replace(frozen, go_trace=data)

    def _settle(self) -> None:
        if self._writing is None or self._writing[0].is_alive():
            return
        _, dump = self._writing
        self._writing = None
        _give_back()
        path = self._dumps.folder / dump.name
        if dump.problem:
            self.counts["failed"] += 1
            self._lines.append(f"{path} was not written: {dump.problem}")
            return
        self.counts["written"] += 1
        self.last = dump.name
        self._lines.append(f"{path}: {dump.reason}, {dump.nbytes:,} bytes")
        if self._on_written is not None:
            self._on_written(dump.name)


def _give_back() -> None:
    """Return to the kernel what a dump took: a watch of weeks makes few, and each takes more
    memory than the window itself, of which the C library would keep most."""
    pa.default_memory_pool().release_unused()
    # glibc's; another C library may have none.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
