"""``pretake watch`` at work: rows to the rules, rules to dumps, and what others ask of it.

One thread does it all but writing and answering: it reads the rings, asks the rules and begins
dumps. The threads that answer hand it what they want, and wait.
"""

from __future__ import annotations

import platform
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from tracer.capture.live import buckets_of
from tracer.capture.recorder import Decision, Recorder
from tracer.capture.watch import LATE_NS
from tracer.errors import PretakeError
from tracer.trace.reader import Trace

if TYPE_CHECKING:
    from analysis.answers.pressure import ProcessPressure
    from analysis.answers.rules import Rule
    from pretake.watcher import Watcher
    from tracer.capture.dumps import Dumps
    from tracer.capture.uploads import Uploads
    from tracer.capture.watch import Watch

__all__ = ["Recording", "import_late"]

_PERIOD_S: Final = 1.0
_ROWS_PERIOD_S: Final = 1.0
_PATIENCE_S: Final = 60.0
_BUCKETS: Final = 256


def import_late(serves: bool, profiles: bool) -> None:
    """Import what a watch with rules or with a listener needs, down to what libraries import when
    they are first used: who has become nobody may not read modules that lie in root's home.

    Args:
        serves: whether it answers requests.
        profiles: whether it makes profiles, which alone need pandas, and with it 45 MB.
    """
    import analysis.answers.alarms
    import pretake.watcher
    from analysis.names import syscall_names

    syscall_names([0], platform.machine())
    if serves:
        import pretake.recording_page  # noqa: F401
    if profiles:
        import analysis.formats.pprof  # noqa: F401

        pa.table({"x": [0]}).to_pandas()


class Recording:
    """Joins a watch, its rules and its dumps.

    Args:
        watched: gives the rows.
        dumps: the folder.
        recorder: writes there.
        rules: begin a dump where they hold.
        exact: whether uprobes tell the runtime's transitions.
        analysed: whether stall time is computed, for rules and metrics.
        uploads: takes what was written to a store; None for no store.

    Attributes:
        alarms: how often each rule held, by its text.
        holds: how long Ps were held, by system call: counts as of a
            :class:`~tracer.capture.live.Histogram`.
    """

    def __init__(
        self,
        watched: Watch,
        dumps: Dumps,
        recorder: Recorder,
        rules: Sequence[Rule],
        exact: bool = False,
        analysed: bool = True,
        uploads: Uploads | None = None,
    ) -> None:
        self.watched = watched
        self.dumps = dumps
        self.recorder = recorder
        self.uploads = uploads
        self.alarms: Counter[str] = Counter({rule.text: 0 for rule in rules})
        self.holds: dict[str, np.ndarray] = {}
        self._watcher: Watcher | None = None
        if analysed:
            from analysis.answers.alarms import Alarms
            from pretake.watcher import Watcher

            self._alarms = Alarms(rules)
            self._watcher = Watcher(watched, exact, self._settled)
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._profiles = threading.Lock()
        self._by_signal = False
        self._rows_s = 0.0

    def by_signal(self, *_: object) -> None:
        """SIGUSR1 came: a dump at the next step."""
        self._by_signal = True

    def run(self, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Watch until it is told to stop, or all processes have ended and none may come.

        Args:
            stop: set from a handler of signals, or another thread.
            say: is given each line that there is to tell.
        """
        ended = False
        while not (ended or stop.is_set()):
            ended = self.watched.wait(_PERIOD_S)
            for line in self.step():
                say(line)
        if ended:
            say("all processes have ended")
        self._take_rows(last=True)
        for line in self.recorder.finish():
            say(line)
        if self.uploads is not None:
            for line in self.uploads.finish():
                say(line)

    def step(self) -> list[str]:
        """Do what is due."""
        lines = []
        if time.monotonic() - self._rows_s >= _ROWS_PERIOD_S:
            self._rows_s = time.monotonic()
            self._take_rows()
            lines += self.watched.step()
        if self._by_signal:
            self._by_signal = False
            self.recorder.trigger("SIGUSR1")
        while not self._asked.empty():
            wanted, answer = self._asked.get()
            try:
                answer.set_result(wanted())
            except BaseException as error:
                answer.set_exception(error)
        lines += self.recorder.step()
        if self.uploads is not None:
            lines += self.uploads.step()
        return lines

    def pressure(self) -> list[ProcessPressure]:
        """Stall time by cause of each process, of what is settled."""
        return [] if self._watcher is None else self._watcher.pressure()

    def dump(self, reason: str) -> Decision:
        """Begin a dump; for other threads.

        Raises:
            TimeoutError: the watch has no time.
        """
        decision: Decision = self._ask(lambda: self.recorder.trigger(reason))
        return decision

    def profile(self, seconds: float) -> bytes:
        """The last seconds as a gzipped pprof profile; for other threads.

        Raises:
            PretakeError: another one is made, or it cannot be made.
            TimeoutError: the watch has no time.
        """
        from analysis.formats.pprof import write_pprof

        if not self._profiles.acquire(blocking=False):
            raise PretakeError("another profile is being made", "ask again")
        name = self.dumps.scratch()
        path = self.dumps.making(name)
        try:
            end_ns = self.watched.now_ns - LATE_NS
            begin_ns = end_ns - round(seconds * 1e9)
            frozen = self._ask(lambda: self.watched.freeze(begin_ns, end_ns, {}))
            frozen.write(path)
            write_pprof(Trace(path), path / "profile")
            return (path / "profile").read_bytes()
        finally:
            self.dumps.remove(f".{name}")
            self._profiles.release()

    def _take_rows(self, last: bool = False) -> None:
        if self._watcher is not None:
            self._watcher.step(last)
        else:
            self.watched.rows(last)

    def _ask(self, wanted: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
        answer: Future[Any] = Future()
        self._asked.put((wanted, answer))
        return answer.result(_PATIENCE_S)

    def _settled(self, name: str, rows: Mapping[str, np.ndarray]) -> None:
        if name == "holds":
            self._count_holds(rows)
        for fired in self._alarms.ask(name, rows):
            self.alarms[fired.rule.text] += 1
            reason = f"{fired.rule.text} ({fired.what} in process {fired.pid})"
            self.recorder.trigger(reason, fired.event_ns)

    def _count_holds(self, rows: Mapping[str, np.ndarray]) -> None:
        buckets = buckets_of(np.maximum(rows["end_ns"] - rows["block_ns"], 1))
        for number in np.unique(rows["nr"]).tolist():
            own = buckets[rows["nr"] == number]
            counts = np.bincount(own, minlength=_BUCKETS)[:_BUCKETS]
            syscall = _called(number)
            self.holds[syscall] = self.holds.get(syscall, 0) + counts


@cache
def _called(number: int) -> str:
    from analysis.names import syscall_names

    (named,) = syscall_names([number], platform.machine())
    return str(named) if number >= 0 else "page fault"
