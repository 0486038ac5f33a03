"""A runtime's own record of its retakes, for a capture that cannot see them.

The reference runtime keeps the record (``reference_runtime/record.py``). It has a JSON line for
each retake: which thread took which P when, from which thread and goroutine, when the call of that
goroutine was entered, and what ran on P first afterwards. The record is not trusted: if a row does
not fit the tables, the whole record is refused.

The record does not have the time of the block. That is the first time after the call's entry at
which the thread left its CPU blocked, from table ``sched_switch``. If there is none, the thread
was still running or waited for a CPU, and there is a retake without a block.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from tracer.errors import PretakeError
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["OwnRecord", "read_own_record"]

_LIMIT: Final = 1 << 30
_NEEDED: Final = ("ts_ns", "enter_ns", "p", "tid", "goid", "taker_tid")
_OF_RUN: Final = ("run_ns", "run_tid", "run_goid")
_FIELDS: Final = (*_NEEDED, *_OF_RUN)
_INT32: Final = ("p", "tid", "taker_tid", "run_tid")
_BLOCKED: Final = TABLES["sched_switch"].column("prev_state").code("blocked")
_NONE: Final = np.iinfo(np.int64).max

Ints = np.ndarray


@dataclass(frozen=True)
class OwnRecord:
    """The record, a row of each array for a retake; ``UNKNOWN`` where there was no run.

    Args:
        numbers: by name of the field.
        reasons: numbers of words of table runtime's column ``reason``.
    """

    numbers: dict[str, Ints]
    reasons: Ints

    def __len__(self) -> int:
        return len(self.reasons)

    def runtime_rows(self) -> pa.Table:
        """The retakes, and what ran first afterwards, as rows of table runtime."""
        table = TABLES["runtime"]
        kind = table.column("kind").code
        of, ran = self.numbers, self.numbers["run_ns"] != UNKNOWN
        retakes = _unknown_rows("runtime", len(self))
        for column, field in (("ts_ns", "ts_ns"), ("goid", "goid"), ("tid", "taker_tid")):
            retakes[column] = of[field]
        retakes["p"], retakes["target_tid"] = of["p"], of["tid"]
        retakes["kind"], retakes["reason"] = kind("retake"), self.reasons
        runs = _unknown_rows("runtime", int(ran.sum()))
        for column, field in (("ts_ns", "run_ns"), ("goid", "run_goid"), ("tid", "run_tid")):
            runs[column] = of[field][ran]
        runs["p"], runs["kind"] = of["p"][ran], kind("run")
        rows = np.concatenate([retakes, runs])
        return table.to_arrow(rows[np.argsort(rows["ts_ns"], kind="stable")])

    def block_rows(self, switches: Iterable[pa.Table]) -> pa.Table:
        """The block that each retake ended, where there was one, as rows of table block.

        Args:
            switches: ts_ns, prev_tid, prev_state and cpu of table sched_switch, in any pieces.
        """
        of = self.numbers
        block_ns = np.full(len(self), _NONE)
        cpus = np.full(len(self), UNKNOWN)
        own = {int(tid): np.flatnonzero(of["tid"] == tid) for tid in np.unique(of["tid"])}
        for piece in switches:
            state = piece.column("prev_state").combine_chunks().indices.fill_null(UNKNOWN)
            left = np.flatnonzero(state.to_numpy() == _BLOCKED)
            tids = _whole_numbers(piece, "prev_tid")[left]
            for tid in np.intersect1d(tids, of["tid"]).tolist():
                at = left[tids == tid]
                times = _whole_numbers(piece, "ts_ns")[at]
                order = np.argsort(times, kind="stable")
                at, times = at[order], times[order]
                rows = own[tid]
                found = np.searchsorted(times, of["enter_ns"][rows])
                rows, found = rows[found < len(times)], found[found < len(times)]
                # Of all pieces the earliest one counts.
                better = times[found] < block_ns[rows]
                rows, found = rows[better], found[better]
                block_ns[rows] = times[found]
                cpus[rows] = _whole_numbers(piece, "cpu")[at[found]]
        blocked = np.flatnonzero(block_ns <= of["ts_ns"])
        blocked = blocked[np.argsort(block_ns[blocked], kind="stable")]
        table = TABLES["block"]
        blocks = _unknown_rows("block", len(blocked))
        blocks["ts_ns"], blocks["cpu"] = block_ns[blocked], cpus[blocked]
        for name in ("enter_ns", "goid", "tid", "p"):
            blocks[name] = of[name][blocked]
        blocks["p_use"] = table.column("p_use").code("syscall")
        return table.to_arrow(blocks)


def read_own_record(fd: int) -> OwnRecord:
    """The record in an open file.

    Raises:
        PretakeError: it is damaged, or larger than can be read.
    """
    mend = "capture it with --backend bpf, as root"
    if os.fstat(fd).st_size > _LIMIT:
        raise PretakeError("the runtime's own record is larger than 1 GiB", mend)
    schema = pa.schema(
        [*(pa.field(name, pa.int64()) for name in _FIELDS), pa.field("reason", pa.string())]
    )
    options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        with open(fd, "rb", closefd=False) as file:
            file.seek(0)
            rows = (
                pj.read_json(file, parse_options=options)
                if os.fstat(fd).st_size
                else schema.empty_table()
            )
        numbers = {name: _whole_numbers(rows, name) for name in _FIELDS}
        if any(rows.column(name).null_count for name in _NEEDED):
            raise ValueError
        for name in _INT32:
            if (numbers[name] != numbers[name].astype(np.int32)).any():
                raise ValueError
    except (OSError, ValueError, LookupError, pa.ArrowException):
        raise PretakeError("the runtime's own record is damaged", mend) from None
    words = TABLES["runtime"].column("reason").words
    codes = {word: number for number, word in enumerate(words)}
    told = rows.column("reason").to_pylist()
    reasons = np.array([codes.get(word, UNKNOWN) for word in told], np.int64)
    return OwnRecord(numbers, reasons)


def _whole_numbers(rows: pa.Table, name: str) -> Ints:
    """A column of whole numbers, ``UNKNOWN`` for null."""
    values = rows.column(name).cast(pa.int64()).fill_null(UNKNOWN).to_numpy()
    return np.asarray(values)


def _unknown_rows(table: str, count: int) -> np.ndarray:
    rows = np.zeros(count, TABLES[table].dtype)
    for column in TABLES[table].columns:
        if column.nullable:
            rows[column.name] = UNKNOWN
    return rows
