"""Reading a trace: a folder with a manifest and one Parquet dataset of part files per table.

Example:
    >>> Trace("x.pretake").frame("task", ["ts_ns", "kind"]).to_dict("records")
    [{'ts_ns': 5, 'kind': 'exec'}]

Reading takes nothing for granted: whoever made the trace may have made it to do harm. Links and
special files are refused, each part's schema and row count are checked before a row is read, and
every fault is a :class:`~tracer.errors.PretakeError` with one line that says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tracer.errors import PretakeError
from tracer.trace.columns import Column, Table, text_array
from tracer.trace.manifest import MANIFEST_NAME, Manifest, manifest_from_json
from tracer.trace.parts import part_name
from tracer.trace.schema import TABLES

if TYPE_CHECKING:
    # Imported where a DataFrame is made: it takes a fifth of a second.
    import pandas as pd

__all__ = ["GO_TRACE", "RowGroup", "Trace", "numbers_of"]

GO_TRACE: Final = "go.trace"
"""The file of a dump's folder that Go's own flight recorder gave (``pretake watch --flight``)."""

_MANIFEST_LIMIT: Final = 16 << 20
_RECAPTURE: Final = "capture it again; the parts before it cannot be trusted to be all"

_TIMES: Final = frozenset({"ts_ns", "enter_ns", "begin_ns"})
"""Columns that say when a row was."""

# What pyarrow raises for a damaged file: its own errors, and Python's for a name that is no text
# or a number that is out of range.
_DAMAGE: Final = (OSError, pa.ArrowException, ValueError, LookupError, MemoryError)


@dataclass(frozen=True)
class RowGroup:
    """A piece of a table that can be read alone; its span is null where the file tells none."""

    part: Path
    number: int
    rows: int
    begin_ns: int | None
    end_ns: int | None


class Trace:
    """A trace that was captured before.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
        manifest: what the trace says of itself. ``manifest.complete`` is False where the
            capture was killed; then its closed parts are what there is.

    Raises:
        PretakeError: there is no trace, it has a newer schema, or a part is missing, cut short
            or from elsewhere.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = self._read_manifest()
        self._parts = {name: self._find_parts(table) for name, table in TABLES.items()}

    @property
    def go_trace(self) -> Path | None:
        """What Go's own flight recorder gave of the same time; None where nothing is there."""
        path = self.path / GO_TRACE
        return path if path.is_file() and not path.is_symlink() else None

    def arrow(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of ``table`` in the order they were stored.

        Args:
            table: a name in :data:`tracer.trace.schema.TABLES`; KeyError for another.
            columns: those wanted; None for all.

        Returns:
            A table with the declared schema, empty if nothing of it was captured.

        Raises:
            PretakeError: a part cannot be decoded.
        """
        declared = TABLES[table]
        wanted = [declared.column(name) for name in columns or declared.arrow_schema.names]
        schema = pa.schema([declared.arrow_schema.field(column.name) for column in wanted])
        pieces = [self._read_part(part, wanted, schema) for part in self._parts[table]]
        # No empty_table, which imports pandas.
        return pa.concat_tables(pieces) if pieces else pa.Table.from_batches([], schema)

    def frame(self, table: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of ``table`` as a DataFrame.

        Args:
            table: a name in :data:`tracer.trace.schema.TABLES`; KeyError for another.
            columns: those wanted; None for all.

        Returns:
            Numbers that may be null as pandas' ``Int8`` to ``Int64``, the others as numpy's;
            words as categories, all of the column's words in their order; names as strings.
        """
        import pandas as pd

        rows = self.arrow(table, columns)
        series = {
            name: _to_series(TABLES[table].column(name), rows.column(name))
            for name in rows.column_names
        }
        return pd.DataFrame(series, columns=rows.column_names)

    def row_groups(self, table: str, time: str) -> list[RowGroup]:
        """The pieces that ``table`` can be read in, for a trace larger than memory.

        Args:
            table: a name in :data:`tracer.trace.schema.TABLES`; KeyError for another.
            time: name of its column whose span each piece tells.

        Raises:
            PretakeError: a part cannot be decoded.
        """
        groups = []
        for part in self._parts[table]:
            try:
                with _open_part(part) as file:
                    metadata = pq.read_metadata(file)
            except _DAMAGE as error:
                _fail_part(part, error)
            at = metadata.schema.names.index(time)
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                told = group.column(at).statistics
                span = (told.min, told.max) if told and told.has_min_max else (None, None)
                groups.append(RowGroup(part, number, group.num_rows, *span))
        return groups

    def read_row_group(
        self, table: str, group: RowGroup, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """One of the pieces from :meth:`row_groups`, as :meth:`arrow` gives the whole.

        Raises:
            PretakeError: a part cannot be decoded.
        """
        declared = TABLES[table]
        wanted = [declared.column(name) for name in columns or declared.arrow_schema.names]
        schema = pa.schema([declared.arrow_schema.field(column.name) for column in wanted])
        return self._read_part(group.part, wanted, schema, group.number)

    def _read_manifest(self) -> Manifest:
        path = self.path / MANIFEST_NAME
        mend = "name a folder that 'pretake record' wrote"
        try:
            problem = None if self.path.is_dir() else "is no folder"
            if problem and not self.path.exists():
                problem = "does not exist"
        except OSError as error:
            # In a folder of another user's, or no name of a file.
            raise PretakeError(f"cannot read {self.path}: {error.strerror}", mend) from None
        if problem:
            raise PretakeError(f"{self.path} {problem}", mend)
        try:
            with _open_regular(path) as file:
                text = file.read(_MANIFEST_LIMIT + 1)
        except OSError as error:
            reason = "it has no manifest.json" if _is_absent(error) else str(error.strerror)
            raise PretakeError(f"{self.path} is no trace: {reason}", mend) from None
        if len(text) > _MANIFEST_LIMIT:
            raise PretakeError(f"{self.path} is no trace: its manifest is too large", mend)
        return manifest_from_json(text, str(self.path))

    def _find_parts(self, table: Table) -> list[Path]:
        folder = self.path / table.name
        try:
            present = {entry.name for entry in folder.iterdir() if entry.suffix == ".parquet"}
        except FileNotFoundError:
            present = set()
        except OSError as error:
            raise PretakeError(f"cannot read {folder}: {error.strerror}", "") from None
        parts: list[Path] = []
        for number in range(len(present)):
            part = folder / part_name(number)
            if part.name not in present:
                strangers = present - {part_name(n) for n in range(len(present))}
                raise PretakeError(
                    f"{part} is missing, and there is {min(strangers)[:80]!r}", _RECAPTURE
                )
            parts.append(part)
        rows = sum(self._check_part(part, table) for part in parts)
        expected = self.manifest.events.get(table.name, 0)
        if self.manifest.complete and rows != expected:
            raise PretakeError(
                f"{folder} holds {rows} rows and the manifest tells of {expected}: "
                "a part file is missing or from another trace",
                _RECAPTURE,
            )
        return parts

    def _check_part(self, part: Path, table: Table) -> int:
        try:
            with _open_part(part) as file:
                metadata = pq.read_metadata(file)
                schema = metadata.schema.to_arrow_schema()
        except _DAMAGE as error:
            _fail_part(part, error)
        if not _fits(schema, self._schema_then(table)):
            raise PretakeError(
                f"{part} is no part of table {table.name}: it has other columns", _RECAPTURE
            )
        return int(metadata.num_rows)

    def _schema_then(self, table: Table) -> pa.Schema:
        """The table's columns in the version of the schema that this trace has."""
        version = self.manifest.schema_version
        return pa.schema(
            [table.arrow_schema.field(c.name) for c in table.columns if c.since <= version]
        )

    def _read_part(
        self, part: Path, columns: list[Column], schema: pa.Schema, group: int | None = None
    ) -> pa.Table:
        there = [c for c in columns if c.since <= self.manifest.schema_version]
        words = [column.name for column in there if column.words]
        names = [column.name for column in there]
        try:
            with _open_part(part) as file:
                whole = pq.ParquetFile(file, read_dictionary=words)
                rows = whole.read(names) if group is None else whole.read_row_group(group, names)
                meta = whole.metadata
            length = meta.num_rows if group is None else meta.row_group(group).num_rows
            for column in there:
                if not column.words:
                    rows.column(column.name).validate(full=column.is_text)
                if column.name in _TIMES:
                    _refuse_early(part, rows.column(column.name))
            arrays = [
                _with_declared_words(c, rows.column(c.name))
                if c in there
                else _of_before(c, length)
                for c in columns
            ]
            return pa.Table.from_arrays(arrays, schema=schema)
        except _DAMAGE as error:
            _fail_part(part, error)


def _fits(found: pa.Schema, declared: pa.Schema) -> bool:
    """Whether a part has the declared columns; what may be null now need not have been so then."""
    return found.names == declared.names and all(
        own.type == field.type and own.nullable <= field.nullable
        for own, field in zip(found, declared, strict=True)
    )


def _is_absent(error: OSError) -> bool:
    return error.errno in (errno.ENOENT, errno.ENOTDIR)


@contextlib.contextmanager
def _open_regular(path: Path) -> Iterator[Any]:
    """Open a regular file for reading; a link, a pipe or a device is an OSError."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        yield file


@contextlib.contextmanager
def _open_part(path: Path) -> Iterator[pa.NativeFile]:
    """The same, as Arrow reads it.

    Never through a file object of Python's: Arrow's own threads would need the interpreter to let
    go of it, and one that does so as the interpreter ends aborts the process ("terminate called
    without an active exception", apache/arrow#34314).
    """
    with _open_regular(path) as file, pa.OSFile(f"/proc/self/fd/{file.fileno()}") as native:
        yield native


def _fail_part(part: Path, error: Exception) -> NoReturn:
    if isinstance(error, OSError) and error.strerror:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise PretakeError(f"cannot read {part}: {reason}", _RECAPTURE) from None
    raise PretakeError(f"{part} is cut short or no Parquet file", _RECAPTURE) from None


def _refuse_early(part: Path, times: pa.ChunkedArray) -> None:
    """CLOCK_MONOTONIC begins at 0: what is before it is no time, and no figure of it is right."""
    if any(numbers_of(chunk, 0).min(initial=0) < 0 for chunk in times.chunks):
        raise PretakeError(f"{part} has times before the machine began", _RECAPTURE)


def _with_declared_words(column: Column, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """``values`` with the column's own words, in their order, as dictionary of every chunk."""
    if not column.words:
        return values
    chunks = [_with_words(column, chunk) for chunk in values.chunks]
    return pa.chunked_array(chunks, column.arrow_type)


def _with_words(column: Column, chunk: pa.DictionaryArray) -> pa.DictionaryArray:
    places = {word: code for code, word in enumerate(column.words)}
    codes = [places.get(word) for word in chunk.dictionary.to_pylist()]
    if None in codes:
        raise pa.ArrowInvalid(f"a word that column {column.name} does not have")
    # A null's number may be any: it is one that no word has.
    told = np.array([*codes, 0], np.int8)[numbers_of(chunk.indices, len(codes))]
    validity = chunk.indices.buffers()[0] if chunk.null_count else None
    if chunk.offset and validity is not None:
        told = np.concatenate([np.zeros(chunk.offset, np.int8), told])
        own = _int8_array(told, validity).slice(chunk.offset)
    else:
        own = _int8_array(told, validity)
    return pa.DictionaryArray.from_arrays(own, text_array(column.words))


def numbers_of(values: pa.Array, null: int) -> np.ndarray:
    """The numbers of an array, without a copy where none of them is null.

    Args:
        values: whole numbers.
        null: what stands for null.
    """
    dtype = np.dtype(f"i{values.type.bit_width // 8}")
    length, offset = len(values), values.offset
    if values.null_count == length:
        return np.full(length, null, dtype)
    validity, data = values.buffers()
    numbers = np.frombuffer(data, dtype)[offset : offset + length]
    if values.null_count:
        bits = np.frombuffer(validity, np.uint8)
        there = np.unpackbits(bits, bitorder="little", count=offset + length)[offset:]
        numbers = np.where(there.view(bool), numbers, dtype.type(null))
    return numbers


def _of_before(column: Column, length: int) -> pa.Array:
    """A column for rows that were written before there was such a column."""
    if column.nullable:
        return pa.nulls(length, column.arrow_type)
    codes = _int8_array(np.zeros(length, np.int8), None)
    return pa.DictionaryArray.from_arrays(codes, text_array(column.words))


def _int8_array(numbers: np.ndarray, validity: pa.Buffer | None) -> pa.Int8Array:
    return pa.Array.from_buffers(pa.int8(), len(numbers), [validity, pa.py_buffer(numbers)])


def _to_series(column: Column, values: pa.ChunkedArray) -> pd.Series[Any]:
    import pandas as pd

    if column.is_text:
        return pd.Series(values.to_pandas(), dtype="str")
    if column.words:
        codes = _word_numbers(values)
        dtype = pd.CategoricalDtype(list(column.words))
        return pd.Series(pd.Categorical.from_codes(codes.tolist(), dtype=dtype))
    if column.nullable:
        nullable = {
            pa.int8(): pd.Int8Dtype(),
            pa.int16(): pd.Int16Dtype(),
            pa.int32(): pd.Int32Dtype(),
            pa.int64(): pd.Int64Dtype(),
        }
        series: pd.Series[Any] = values.to_pandas(types_mapper=nullable.get)
        return series
    return pd.Series(values.to_numpy())


def _word_numbers(values: pa.ChunkedArray) -> np.ndarray:
    pieces = [
        chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in values.chunks
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int8)
