"""The tables that the analysis makes, declared once: the code, the documentation and the tests
take names, types and meanings from here.

A table is a DataFrame. Numbers that may be unknown have pandas' nullable ``Int64``; unknown is
``<NA>``, never 0. While a table is made, its columns are plain int64 with
:data:`tracer.trace.schema.UNKNOWN` for null: that is several times faster, and
:meth:`Frame.finish` is the one place where it becomes null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.trace.columns import unit_of
from tracer.trace.schema import UNKNOWN
from tracer.trace.words import P_USES, RUNTIME_REASONS

if TYPE_CHECKING:
    # Imported where a DataFrame is made: it takes a fifth of a second.
    import pandas as pd

__all__ = ["CLASSES", "CLASS_MEANINGS", "EPISODES", "OUTCOMES", "PARTS", "Field", "Frame"]


@dataclass(frozen=True)
class Field:
    """One column: ``int`` or ``float`` (nullable), ``bool``, ``str``, or words (a category)."""

    name: str
    meaning: str
    type: str = "int"
    words: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """The unit (:func:`tracer.trace.columns.unit_of`)."""
        return unit_of(self.name)


@dataclass(frozen=True)
class Frame:
    """One table of the analysis."""

    name: str
    meaning: str
    fields: tuple[Field, ...]
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(column.name for column in self.fields))

    def finish(
        self,
        columns: Mapping[str, np.ndarray | pd.Series[Any]],
        names: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Plain columns as a DataFrame of this schema.

        Args:
            columns: by name; integers with ``UNKNOWN`` for null (floats: NaN), for words their
                index. A column that is not given is null everywhere.
            names: the columns to make; None for all.
        """
        import pandas as pd

        length = max((len(values) for values in columns.values()), default=0)
        wanted = self.names if names is None else tuple(names)
        made = {
            f.name: _finish(f, columns.get(f.name), length)
            for f in self.fields
            if f.name in wanted
        }
        return pd.DataFrame(made, columns=list(wanted))

    def finish_rows(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A frame that has these columns already, each of text or of whole numbers.

        Args:
            rows: grouped or aggregated ones; null may be None, NaN or ``<NA>``.
        """
        texts = {column.name for column in self.fields if column.type == "str"}
        return self.finish(
            {
                name: rows[name].astype(object).where(rows[name].notna(), None).to_numpy(object)
                if name in texts
                else rows[name].astype("Int64").to_numpy(np.int64, na_value=UNKNOWN)
                for name in self.names
            }
        )


def _finish(
    column: Field, values: np.ndarray | pd.Series[Any] | None, length: int
) -> pd.Series[Any]:
    import pandas as pd

    if values is None:
        values = np.full(length, 0 if column.type == "bool" else UNKNOWN, np.int64)
        if column.type == "str":
            values = np.full(length, None, object)
        if column.type == "float":
            values = np.full(length, np.nan)
    if column.type == "str":
        return pd.Series(values, dtype="str")
    if column.type == "float":
        floats = np.asarray(values, np.float64)
        return pd.Series(pd.arrays.FloatingArray(floats, np.isnan(floats)))
    numbers = np.asarray(values)
    if column.words:
        dtype: pd.CategoricalDtype[str] = pd.CategoricalDtype(list(column.words))
        return pd.Series(pd.Categorical.from_codes(numbers, dtype=dtype))
    if column.type == "bool":
        return pd.Series(numbers.astype(bool))
    return pd.Series(pd.arrays.IntegerArray(numbers.astype(np.int64), numbers == UNKNOWN))


OUTCOMES = (
    "retaken",  # P was taken from the thread, or given away, after it had blocked
    "handed_off",  # P was given away for the call, before the thread blocked
    "kept",  # the call returned, or the trace ended, with P still held
)
"""How an episode's hold ended. Null: P was gone when the call returned; nobody knows when."""

CLASS_MEANINGS = {
    "harmless": "P was held but no goroutine waited for it, or P was handed off in time",
    "deliberate": "P's queue was empty and another P idle; the runtime then leaves P on purpose",
    "harmful": "a goroutine waited, and no idle P and no spinning M could run it",
    "kept": "the call returned before P was taken",
    "needless": "P was handed off, and the call returned before P ran anything else",
    "unknown": "records were lost, or the trace does not have what is needed to tell",
}
CLASSES = tuple(CLASS_MEANINGS)
"""What an episode means; :mod:`analysis.ptime.classify` has the rule for each."""

PARTS = (
    # Each lasts from the moment of the part before it (the first: from the block) to its own.
    (
        "notice_ns",
        "part_notice_ns",
        "until the thread that will take P, mostly sysmon's, is on a CPU",
    ),
    ("taken_ns", "part_take_ns", "until that thread has taken P"),
    ("handoff_ns", "part_handoff_ns", "until the handoff of P to another M begins (handoffp)"),
    ("startm_ns", "part_start_ns", "until an M is chosen or made for P (startm)"),
    ("m_wake_ns", "part_m_wake_ns", "until the thread of that M is woken"),
    ("m_oncpu_ns", "part_m_oncpu_ns", "until that thread is on a CPU"),
    ("acquirep_ns", "part_acquire_ns", "until that M acquires P (acquirep)"),
    ("run_ns", "part_run_ns", "until P runs a goroutine"),
)
"""The way of P from the block to the next goroutine: moment, length of the step, meaning."""

EPISODES = Frame(
    "episodes",
    "one system call in which a thread blocked while it held a P, or before which its P was "
    "handed off; it begins at the first block of the call",
    (
        Field("tid", "thread that blocked"),
        Field("pid", "its process, from the trace's task table"),
        Field("comm", "the thread's name", "str"),
        Field("container", "id of the container that its process is in", "str"),
        Field("pod", "uid of the pod that its process is in", "str"),
        Field("goid", "goroutine whose call it is"),
        Field("p", "P that it held or had handed off; identified by pid and p together"),
        Field("m", "M that the thread is"),
        Field("nr", "number of the system call, by the architecture of the trace"),
        Field("syscall", "its name", "str"),
        Field("arg0", "its first argument, often a file descriptor"),
        Field("ret", "what it returned; negative is -errno"),
        Field("blocks", "how many times it blocked"),
        Field("blocked_ns", "time inside the call in which the thread was not runnable"),
        Field("cpu", "CPU it blocked on"),
        Field("stack_id", "row in table stack"),
        Field("enter_ns", "when the call was entered; null if that was before the capture"),
        Field("block_ns", "when the thread blocked"),
        Field("notice_ns", "when the thread that took P came onto a CPU, if after the block"),
        Field("release_ns", "when the thread lost P: taken_ns or handoff_ns, whichever is first"),
        Field("taken_ns", "when another thread took P (runtime kind retake)"),
        Field("handoff_ns", "when the handoff of P to another M began (runtime kind handoff)"),
        Field("startm_ns", "when an M was chosen or made for P (runtime kind startm)"),
        Field("m_wake_ns", "when the thread of the next M was woken"),
        Field("m_oncpu_ns", "when that thread came onto a CPU"),
        Field("acquirep_ns", "when the next M acquired P (runtime kind acquirep)"),
        Field("run_ns", "when a goroutine ran on P again (runtime kind run)"),
        Field("pidle_ns", "when P went to the idle list instead (runtime kind pidle)"),
        Field("wake_ns", "when the blocked thread was woken"),
        Field("exit_ns", "when the call returned; null if it was still open at the end"),
        Field("exit_slow_ns", "when the returning thread found its P gone (kind exit_slow)"),
        Field(
            "hold_ns",
            "from block to release; if P was kept, to the end of the call or of the trace",
        ),
        Field(
            "retake_ns",
            "P-retake latency: from the block until P runs a goroutine again; 0 if it ran one "
            "before; null if P was kept or went idle, or if it is not known",
        ),
        Field(
            "harm_ns",
            "harm: the hold's share of lost P time while its thread was blocked, as a least "
            "value; null if it is not known whether there was any",
        ),
        Field("harm_most_ns", "the most that this share can have been"),
        Field(
            "awake_ns",
            "the part of the hold after the wake-up, in which the thread waited for a CPU",
        ),
        Field(
            "monitor_wait_ns",
            "how long the monitor (sysmon), which would have taken P, waited for a CPU",
        ),
        *(Field(name, f"part of retake_ns: {meaning}") for _, name, meaning in PARTS),
        Field("outcome", "how the hold ended", words=OUTCOMES),
        Field("reason", "why P was taken or handed off", words=RUNTIME_REASONS),
        Field("taker_tid", "thread that took P or handed it off"),
        Field("runner_tid", "thread that ran P next"),
        Field("runq", "goroutines in P's local run queue at the block"),
        Field("global_runq", "goroutines in the global queue at the block"),
        Field("npidle", "idle Ps at the block"),
        Field("nmspinning", "Ms looking for work at the block"),
        Field("p_use", "what the thread did with its P, as in table block", words=P_USES),
        Field("class", "what the episode means", words=CLASSES),
        Field("lost_overlap", "records were lost during the episode, so do not trust it", "bool"),
        Field("censored", "hold_ns is a lower bound: P was still held at its end", "bool"),
    ),
)
"""The table that :func:`analysis.ptime.episodes.episodes` makes."""
