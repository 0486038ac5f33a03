"""The columns of a trace's tables, and their types in C, numpy and Arrow.

:mod:`tracer.trace.schema` declares the tables with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from tracer.trace.unknown import UNKNOWN

__all__ = ["Column", "Table", "column_array", "storable", "text_array", "unit_of"]

_C_TYPES = {"i8": "__s8", "i16": "__s16", "i32": "__s32", "i64": "__s64", "comm": "char"}
_NUMPY_TYPES = {"i8": "i1", "i16": "<i2", "i32": "<i4", "i64": "<i8", "comm": "S16"}
_ARROW_TYPES = {"i8": pa.int8(), "i16": pa.int16(), "i32": pa.int32(), "i64": pa.int64()}
_TEXTS = ("comm", "text")
_COMM_LENGTH = 16


def unit_of(name: str) -> str:
    """The unit of a column, from its name's suffix; empty for counts, identities and words."""
    return "ns" if name.endswith("_ns") else ""


@dataclass(frozen=True)
class Column:
    """One column of one table.

    Args:
        name: carries its unit as a suffix where it has one (``_ns``).
        type: ``i8``, ``i16``, ``i32``, ``i64``, ``comm`` (a thread's name, 16 bytes), or
            ``text`` of any length (only in a table without a ring).
        meaning: one sentence for the documentation.
        nullable: whether ``UNKNOWN`` may stand here; it becomes null in Arrow.
        words: the words that an enumerated column's numbers stand for, from 0.
        unknown: the number that stands for null in a record.
        since: the version of the schema that brought it. In an older trace it is null, or, where
            it cannot be, its first word: what every row was before there were others.
    """

    name: str
    type: str
    meaning: str
    nullable: bool = False
    words: tuple[str, ...] = ()
    since: int = 1
    unknown: int = UNKNOWN

    @property
    def unit(self) -> str:
        """The unit (:func:`unit_of`)."""
        return unit_of(self.name)

    @property
    def is_text(self) -> bool:
        """Whether its values are strings that are no words of the schema."""
        return self.type in _TEXTS

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's type in Arrow and Parquet."""
        if self.is_text:
            return pa.string()
        if self.words:
            return pa.dictionary(pa.int8(), pa.string())
        return _ARROW_TYPES[self.type]

    @property
    def numpy_type(self) -> np.dtype[Any]:
        """The column's type in a fixed-size record; KeyError for a text of any length."""
        return np.dtype(_NUMPY_TYPES[self.type])

    @property
    def c_declaration(self) -> str:
        """The column as a member of a C struct."""
        array = f"[{_COMM_LENGTH}]" if self.type == "comm" else ""
        return f"{_C_TYPES[self.type]} {self.name}{array};"

    def code(self, word: str) -> int:
        """The number that stands for ``word``; ValueError where the column has no such word."""
        return self.words.index(word)


@dataclass(frozen=True)
class Table:
    """One table of a trace: a Parquet dataset of part files, and, if ``ring``, a BPF ring."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    ring: bool = True

    def column(self, name: str) -> Column:
        """The column called ``name``; KeyError where there is none."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """The numpy type of one fixed-size record, laid out as the C struct is."""
        return np.dtype([(c.name, c.numpy_type) for c in self.columns], align=True)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema of the table's part files."""
        return pa.schema(
            [pa.field(c.name, c.arrow_type, nullable=c.nullable) for c in self.columns]
        )

    def to_arrow(self, records: np.ndarray) -> pa.Table:
        """Turn fixed-size records into an Arrow table, column by column.

        Args:
            records: a one-dimensional array of :attr:`dtype`.

        Returns:
            A table with :attr:`arrow_schema`; ``UNKNOWN`` in a nullable column is null.
        """
        return pa.Table.from_arrays(
            [column_array(c, records[c.name]) for c in self.columns],
            schema=self.arrow_schema,
        )


def column_array(column: Column, values: np.ndarray) -> pa.Array:
    """Values of one column, as fixed-size records have them, out of their buffers.

    ``pa.array`` would ask whether it is given something of pandas', and import it for that: half
    of the time that a capture takes to begin.
    """
    if column.type == "comm":
        # A thread's name is bytes that its owner chose: not always UTF-8, never trusted.
        return text_array([name.decode("utf-8", "replace") for name in values.tolist()])
    # A field of a record array is strided, and one record's is the ring's own memory.
    values = values.copy()
    valid, unknown = None, 0
    if column.nullable:
        known = values != column.unknown
        unknown = len(values) - int(np.count_nonzero(known))
        valid = pa.py_buffer(np.packbits(known, bitorder="little")) if unknown else None
    numbers = pa.Array.from_buffers(
        _ARROW_TYPES[column.type], len(values), [valid, pa.py_buffer(values)], unknown
    )
    if not column.words:
        return numbers
    return pa.DictionaryArray.from_arrays(numbers, text_array(column.words))


def storable(text: str) -> str:
    """``text`` with a replacement for what UTF-8 has no bytes for, so that it can be shown.

    A file's name may be any bytes; Python keeps those that are no text as lone surrogates.
    """
    return text.encode("utf-8", "replace").decode()


def text_array(texts: Sequence[str | None]) -> pa.Array:
    """Strings as Arrow has them; None is null."""
    pieces = [b"" if text is None else text.encode("utf-8", "replace") for text in texts]
    ends = np.zeros(len(pieces) + 1, np.int32)
    np.cumsum([len(piece) for piece in pieces], out=ends[1:])
    known = np.array([text is not None for text in texts], bool)
    return pa.StringArray.from_buffers(
        len(pieces),
        pa.py_buffer(ends),
        pa.py_buffer(b"".join(pieces)),
        pa.py_buffer(np.packbits(known, bitorder="little")),
        len(pieces) - int(np.count_nonzero(known)),
    )
