"""A trace on disk: a folder with a manifest and one Parquet dataset of part files per table.

Example:
    >>> trace = write_trace(tmp / "x.pretake", {"task": {"ts_ns": [5], "kind": ["exec"]}})
    >>> trace.frame("task", ["ts_ns", "kind"]).to_dict("records")
    [{'ts_ns': 5, 'kind': 'exec'}]

Reading takes nothing for granted: whoever made the trace may have made it to do harm. Links and
special files are refused, each part's schema and row count are checked before a row is read, and
every fault is a :class:`~tracer.errors.PretakeError` with one line that says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracer.errors import PretakeError
from tracer.manifest import Manifest, manifest_from_json
from tracer.parts import Owner, PartWriter, part_name, write_whole
from tracer.schema import TABLES, Column, Table

if TYPE_CHECKING:
    # Imported where a DataFrame is made: it takes a fifth of a second, and a capture makes none.
    import pandas as pd

__all__ = ["RowGroup", "Trace", "TraceWriter", "write_trace"]

_MANIFEST: Final = "manifest.json"
_MANIFEST_LIMIT: Final = 16 << 20
_RECAPTURE: Final = "capture it again; the parts before it cannot be trusted to be all"

# What pyarrow raises for a damaged file: its own errors, and Python's for a name that is no text
# or a number that is out of range.
_DAMAGE: Final = (OSError, pa.ArrowException, ValueError, LookupError, MemoryError)

_ROW_GROUP_ROWS: Final = 1 << 19
_PART_BYTES: Final = 64 << 20
_PART_SECONDS: Final = 5.0


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

    def arrow(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of ``table`` in the order they were stored.

        Args:
            table: a name in :data:`tracer.schema.TABLES`; KeyError for another.
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
        return pa.concat_tables(pieces) if pieces else schema.empty_table()

    def frame(self, table: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of ``table`` as a DataFrame.

        Args:
            table: a name in :data:`tracer.schema.TABLES`; KeyError for another.
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
            table: a name in :data:`tracer.schema.TABLES`; KeyError for another.
            time: name of its column whose span each piece tells.

        Raises:
            PretakeError: a part cannot be decoded.
        """
        declared = TABLES[table]
        at = declared.arrow_schema.get_field_index(time)
        groups = []
        for part in self._parts[table]:
            try:
                with _open_regular(part) as file:
                    metadata = pq.read_metadata(file)
            except _DAMAGE as error:
                _fail_part(part, error)
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
        path = self.path / _MANIFEST
        mend = "name a folder that 'pretake record' wrote"
        if not self.path.is_dir():
            problem = "is no folder" if self.path.exists() else "does not exist"
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
            with _open_regular(part) as file:
                metadata = pq.read_metadata(file)
                schema = metadata.schema.to_arrow_schema()
        except _DAMAGE as error:
            _fail_part(part, error)
        if not _fits(schema, table.arrow_schema):
            raise PretakeError(
                f"{part} is no part of table {table.name}: it has other columns", _RECAPTURE
            )
        return int(metadata.num_rows)

    def _read_part(
        self, part: Path, columns: list[Column], schema: pa.Schema, group: int | None = None
    ) -> pa.Table:
        words = [column.name for column in columns if column.words]
        names = [column.name for column in columns]
        try:
            with _open_regular(part) as file:
                whole = pq.ParquetFile(file, read_dictionary=words)
                rows = whole.read(names) if group is None else whole.read_row_group(group, names)
            for column in columns:
                if not column.words:
                    rows.column(column.name).validate(full=column.is_text)
            arrays = [_with_declared_words(c, rows.column(c.name)) for c in columns]
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


def _fail_part(part: Path, error: Exception) -> NoReturn:
    if isinstance(error, OSError) and error.strerror:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise PretakeError(f"cannot read {part}: {reason}", _RECAPTURE) from None
    raise PretakeError(f"{part} is cut short or no Parquet file", _RECAPTURE) from None


def _with_declared_words(column: Column, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """``values`` with the column's own words, in their order, as dictionary of every chunk."""
    if not column.words:
        return values
    declared = pa.array(column.words, pa.string())
    chunks = []
    for chunk in values.chunks:
        codes = pc.index_in(chunk.dictionary, declared).cast(pa.int8())
        if codes.null_count:
            raise pa.ArrowInvalid(f"a word that column {column.name} does not have")
        chunks.append(pa.DictionaryArray.from_arrays(codes.take(chunk.indices), declared))
    return pa.chunked_array(chunks, column.arrow_type)


def _to_series(column: Column, values: pa.ChunkedArray) -> pd.Series[Any]:
    import pandas as pd

    if column.is_text:
        return pd.Series(values.to_pandas(), dtype="str")
    if column.words:
        codes = _codes(values)
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


def _codes(values: pa.ChunkedArray) -> np.ndarray:
    pieces = [
        chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in values.chunks
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int8)


class TraceWriter:
    """Writes a trace, part by part.

    A part is rotated when it reaches 64 MB or 5 s, so that a capture that is killed loses at
    most its last seconds, and memory stays flat.

    Args:
        path: the folder to make.
        manifest: what is known when the capture begins.
        force: replace a trace that is there. A folder that is no trace is never replaced.
        owner: who the files shall belong to.
        part_seconds: age at which a part is closed.
        part_bytes: size at which a part is closed.

    Raises:
        PretakeError: the folder exists (without ``force``, or is no trace) or cannot be made.
    """

    def __init__(
        self,
        path: str | Path,
        manifest: Manifest | None = None,
        *,
        force: bool = False,
        owner: Owner = None,
        part_seconds: float = _PART_SECONDS,
        part_bytes: int = _PART_BYTES,
    ) -> None:
        self.path = Path(path)
        self.rows: dict[str, int] = dict.fromkeys(TABLES, 0)
        self.bytes = 0
        self._owner = owner
        self._part_seconds = part_seconds
        self._part_bytes = part_bytes
        self._pending: dict[str, list[pa.Table]] = {name: [] for name in TABLES}
        self._since_s: dict[str, float] = {}
        self._open: dict[str, PartWriter] = {}
        self._numbers: dict[str, int] = dict.fromkeys(TABLES, 0)
        self._fds: dict[str, int] = {}
        check_output(self.path, force)
        try:
            if force and self.path.exists():
                shutil.rmtree(self.path)
            self.path.mkdir()
            self._fd = os.open(self.path, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._own(self._fd)
        except OSError as error:
            raise PretakeError(
                f"cannot make {self.path}: {error.strerror}", "choose another output folder"
            ) from None
        self.update(manifest or Manifest())

    def write(self, table: str, rows: pa.Table) -> None:
        """Append rows of one table; they reach the disk when a row group is full or old.

        Raises:
            PretakeError: the disk is full. The parts closed before stay whole.
        """
        if rows.num_rows == 0:
            return
        self._since_s.setdefault(table, time.monotonic())
        pending = self._pending[table]
        pending.append(rows)
        if sum(piece.num_rows for piece in pending) >= _ROW_GROUP_ROWS:
            with self._disk():
                self._flush(table)
                self._rotate(table, now=self._open[table].bytes >= self._part_bytes)

    def rotate(self, now: bool = False) -> None:
        """Close the parts that are due, or with ``now`` all of them; call it now and then."""
        with self._disk():
            for table in TABLES:
                self._rotate(table, now)

    def update(self, manifest: Manifest) -> None:
        """Put ``manifest`` in place of the one on disk."""
        with self._disk():
            write_whole(self._fd, _MANIFEST, manifest.to_json(), self._owner)

    def close(self, manifest: Manifest) -> None:
        """Close every part and write the final manifest: complete, with the rows stored.

        Raises:
            PretakeError: the disk is full; the parts closed before stay whole.
        """
        try:
            self.rotate(now=True)
        except PretakeError as error:
            # What could not be written any more is gone; the rest is a whole trace.
            manifest.error = manifest.error or error.problem
            self._finish(manifest)
            raise
        self._finish(manifest)

    def abort(self) -> None:
        """Leave no trace of the trace: for a capture that failed before it began."""
        self._discard_open()
        self._close_fds()
        shutil.rmtree(self.path, ignore_errors=True)

    def _finish(self, manifest: Manifest) -> None:
        self._discard_open()
        manifest.events = dict(self.rows)
        # What found no room on the disk is lost as well as what found none in a ring.
        manifest.lost |= {name: sent - self.rows[name] for name, sent in manifest.sent.items()}
        manifest.capture.bytes = self.bytes
        total = sum(self.rows.values())
        manifest.capture.bytes_per_event = self.bytes / total if total else None
        manifest.complete = True
        try:
            self.update(manifest)
        finally:
            self._close_fds()

    def _flush(self, table: str) -> None:
        pending = self._pending[table]
        if not pending:
            return
        part = self._open.get(table)
        if part is None:
            part = PartWriter(
                self._folder(table), self._numbers[table], TABLES[table], self._owner
            )
            self._open[table] = part
        part.write(pa.concat_tables(pending).combine_chunks())
        pending.clear()

    def _rotate(self, table: str, now: bool) -> None:
        since_s = self._since_s.get(table)
        if since_s is None or not (now or time.monotonic() - since_s >= self._part_seconds):
            return
        self._flush(table)
        part = self._open.pop(table)
        del self._since_s[table]
        part.close()
        self._numbers[table] += 1
        self.rows[table] += part.rows
        self.bytes += part.bytes

    def _folder(self, table: str) -> int:
        if table not in self._fds:
            os.mkdir(table, dir_fd=self._fd)
            flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fds[table] = os.open(table, flags, dir_fd=self._fd)
            self._own(self._fds[table])
        return self._fds[table]

    def _own(self, fd: int) -> None:
        if self._owner is not None:
            os.fchown(fd, *self._owner)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._discard_open()
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise PretakeError(
                    f"no room left on the disk of {self.path}",
                    "free some and capture again; the parts closed before are whole",
                ) from None
            raise PretakeError(
                f"cannot write {self.path}: {error.strerror or error}",
                "choose another output folder",
            ) from None

    def _discard_open(self) -> None:
        for part in self._open.values():
            part.discard()
        self._open.clear()
        self._since_s.clear()
        for pending in self._pending.values():
            pending.clear()

    def _close_fds(self) -> None:
        for fd in (*self._fds.values(), self._fd):
            os.close(fd)
        self._fds.clear()


def check_output(path: Path, force: bool = False) -> None:
    """Refuse an output folder that is taken, before any work is done.

    Raises:
        PretakeError: it exists and ``force`` is not given, or it is no trace, or the folder
            it shall stand in is not there.
    """
    if not path.parent.is_dir():
        raise PretakeError(f"there is no folder {path.parent}", "make it, or choose another")
    if not (path.exists() or path.is_symlink()):
        return
    if not force:
        raise PretakeError(f"{path} exists", "choose another output or give --force")
    if path.is_symlink() or not (path / _MANIFEST).is_file():
        raise PretakeError(
            f"{path} exists and is no trace, so --force does not replace it",
            "choose another output or remove it yourself",
        )


def write_trace(
    path: str | Path,
    tables: Mapping[str, Mapping[str, Sequence[Any]]],
    manifest: Mapping[str, Any] | None = None,
) -> Trace:
    """Write a trace from plain values: for tests, and for what is not captured by a ring.

    Args:
        path: the folder to make.
        tables: values by table and column; words and names as strings, None for null. A column
            that is not given is null, or 0 (the first word, no name) where null is not allowed.
        manifest: fields of :class:`~tracer.manifest.Manifest` that differ from their default.

    Returns:
        The trace, read back.
    """
    writer = TraceWriter(path)
    for name, given in tables.items():
        writer.write(name, _table_of(TABLES[name], given))
    described = manifest_from_json(
        Manifest().to_json() if manifest is None else _merged_json(manifest), str(path)
    )
    writer.close(described)
    return Trace(path)


def _merged_json(manifest: Mapping[str, Any]) -> str:
    import json

    return json.dumps({**json.loads(Manifest().to_json()), **manifest})


def _table_of(table: Table, given: Mapping[str, Sequence[Any]]) -> pa.Table:
    unknown = set(given) - set(table.arrow_schema.names)
    if unknown:
        raise KeyError(f"table {table.name} has no column {', '.join(sorted(unknown))}")
    length = max((len(values) for values in given.values()), default=0)
    arrays = []
    for column in table.columns:
        if column.nullable:
            default: Any = None
        elif column.words:
            default = column.words[0]
        else:
            default = "" if column.is_text else 0
        values = list(given.get(column.name, [default] * length))
        if column.words:
            codes = [None if word is None else column.code(word) for word in values]
            arrays.append(
                pa.DictionaryArray.from_arrays(
                    pa.array(codes, pa.int8()), pa.array(column.words, pa.string())
                )
            )
        else:
            arrays.append(pa.array(values, column.arrow_type))
    return pa.Table.from_arrays(arrays, schema=table.arrow_schema)
