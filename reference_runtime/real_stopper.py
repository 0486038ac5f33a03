"""Stops threads by tgkill(SIGURG) and the handler in ``_preempt.c``."""

from __future__ import annotations

import ctypes
import os
import site
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reference_runtime import _native, transitions
from reference_runtime.current import COMPILED
from reference_runtime.gmp import NO_G, NO_P
from reference_runtime.host import Stopper

if TYPE_CHECKING:
    from mypy_extensions import i64

LIBRARY: Final = "reference_runtime__mypyc"
PROBED: Final = "CPyDef_transitions___transition"


def probed_function() -> int:
    """The address of ``transition``, for the handler to call; 0 where it is not compiled.

    It is empty, so that it may be called where no Python code may: a tracer's probe stands on it.
    """
    if not COMPILED:
        return 0
    library = ctypes.CDLL(__import__(LIBRARY).__file__)
    return ctypes.cast(getattr(library, PROBED), ctypes.c_void_p).value or 0


def nobodys_signals() -> int:
    """Signals that met threads without a slot, in this process."""
    return _native.count_nobodys()


def folder(path: str) -> str:
    """With its end, so that no other folder begins like it."""
    return str(Path(path).resolve()) + os.sep


RUNTIME_FOLDERS: Final = (folder(os.path.dirname(__file__)),)  # noqa: PTH120
"""Whose code may hold the runtime's own locks: nobody is stopped there."""
PROGRAM_FOLDERS: Final = (folder(os.path.dirname(__file__)) + "workloads" + os.sep,)  # noqa: PTH120
"""Programs all the same."""
LIBRARY_FOLDERS: Final = (
    "<frozen ",
    *(
        folder(sysconfig.get_paths()[name])
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
    ),
    *(folder(path) for path in site.getsitepackages()),
)
"""Whose code may hold locks that other goroutines need."""


class SignalStopper(Stopper):
    """The real one; Go's signal too, since programs that use it expect to get it for nothing."""

    def __init__(self) -> None:
        probed = probed_function()
        _native.trace_lines(RUNTIME_FOLDERS, PROGRAM_FOLDERS, LIBRARY_FOLDERS, probed)
        self.own = _native.preempt_begin(
            probed,
            transitions.PREEMPTED,
            transitions.PREEMPT_REFUSED,
            transitions.ACQUIREP,
            transitions.RUN,
            transitions.BY_SIGNAL,
            transitions.NOT_WANTED,
            transitions.UNSAFE_POINT,
            transitions.NOT_RUNNING_G,
        )
        self.nobodys = nobodys_signals()

    def end(self) -> tuple[int, int, int, int]:
        """Set back SIGURG's handler.

        A thread without a slot belongs to no runtime: what it refused is told by each.
        """
        stopped, not_wanted, unsafe_point, not_running_g = _native.preempt_end(self.own)
        nobodys = nobodys_signals() - self.nobodys
        return stopped, not_wanted, unsafe_point, not_running_g + nobodys

    def thread_begins(self, m: object) -> i64:
        """The slot's address."""
        return _native.slot_begin(m, NO_P, NO_G, self.own)

    def thread_ends(self) -> None:
        """The slot may serve again."""
        _native.slot_end()

    def runs_goroutines(self, slot: i64, yes: bool) -> None:
        """As :meth:`Stopper.runs_goroutines`."""
        _native.slot_runs(slot, yes)

    def ask(self, slot: i64, tid: i64, p: object, g: object) -> bool:  # noqa: ARG002
        """As :meth:`Stopper.ask`."""
        return _native.slot_ask(slot, p, g)

    def withdraw(self, slot: i64) -> None:
        """As :meth:`Stopper.withdraw`."""
        _native.slot_withdraw(slot, NO_G)

    def stopped(self, slot: i64) -> bool:
        """As :meth:`Stopper.stopped`."""
        return _native.slot_stopped(slot)

    def resume(self, slot: i64, p: object, g: object) -> None:
        """As :meth:`Stopper.resume`."""
        _native.slot_resume(slot, p, g)

    def count(self) -> i64:
        """As :meth:`Stopper.count`."""
        return _native.count_stops()

    def announce(self) -> None:
        """As :meth:`Stopper.announce`."""
        _native.announce_stop()

    def wait(self, seen: i64, ns: i64) -> None:
        """A futex; the kernel adds its timer slack, as to a sleep."""
        _native.wait_for_stop(seen, ns)
