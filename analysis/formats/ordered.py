"""A table in the order of time that may be larger than memory.

Episodes come in the order in which their calls ended, window by window. A reader wants them in the
order in which they began, and one call may block for a whole capture. So the rows are written to a
temporary file, and only the keys of the order stay in memory: 24 bytes a row instead of some 500.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

__all__ = ["in_order"]

_ROWS = 20_000


def in_order(
    pieces: Iterable[pd.DataFrame], keys: Sequence[str], rows: int = _ROWS
) -> Iterator[pd.DataFrame]:
    """The rows of all pieces, ordered by integer columns.

    Args:
        pieces: frames with the same columns; at least one, which may be empty.
        keys: the columns, the most significant first; no null in them.
        rows: of each frame that is yielded.

    Yields:
        Frames with the pieces' types; an empty one if there is no row.
    """
    empty: pd.DataFrame | None = None
    columns: list[list[np.ndarray]] = [[] for _ in keys]
    ends = [0]
    with tempfile.NamedTemporaryFile(prefix="pretake-") as spill:
        writer = None
        for piece in pieces:
            empty = piece[:0] if empty is None else empty
            if piece.empty:
                continue
            table = pa.Table.from_pandas(piece, preserve_index=False)
            if writer is None:
                writer = pa.ipc.new_file(spill, table.schema)
            # One batch a piece: a batch is what is found again.
            (batch,) = table.combine_chunks().to_batches()
            writer.write_batch(batch)
            for held, key in zip(columns, keys, strict=True):
                held.append(piece[key].to_numpy(np.int64))
            ends.append(ends[-1] + len(piece))
        if writer is None:
            if empty is not None:
                yield empty
            return
        writer.close()
        spill.flush()
        order = np.lexsort([np.concatenate(held) for held in reversed(columns)])
        with pa.memory_map(spill.name) as file:
            batches = pa.ipc.open_file(file)
            for begin in range(0, len(order), rows):
                yield _rows(batches, np.asarray(ends), order[begin : begin + rows])


def _rows(
    batches: pa.ipc.RecordBatchFileReader, ends: np.ndarray, wanted: np.ndarray
) -> pd.DataFrame:
    """Some rows, by their numbers in the whole file, in that order."""
    number = np.searchsorted(ends, wanted, "right") - 1
    found, places = [], []
    for one in np.unique(number).tolist():
        its = np.flatnonzero(number == one)
        found.append(batches.get_batch(one).take(pa.array(wanted[its] - ends[one])))
        places.append(its)
    back = np.argsort(np.concatenate(places))
    frame: pd.DataFrame = pa.Table.from_batches(found).take(pa.array(back)).to_pandas()
    return frame
