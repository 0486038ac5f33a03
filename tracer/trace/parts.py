"""One Parquet part file of one table: how it is encoded, written and put in place.

A part gets its name only when it is complete. Until then it has no name (``O_TMPFILE``), so a
tracer that is killed leaves no incomplete file behind. On a filesystem without ``O_TMPFILE`` it is
a dot file that is renamed.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from tracer.trace.columns import Table

__all__ = ["HeldRoom", "Owner", "PartWriter", "part_name", "write_whole"]

Owner = tuple[int, int] | None
"""User and group that files are given to; None leaves them to who runs the process."""

_FILE_MODE: Final = 0o644

# Numbers that repeat a few values are smaller as a dictionary, whatever their order; the
# others grow or stay near their neighbours, where differences are small.
_DELTA_SUFFIXES: Final = ("_ns",)
_DELTA_NAMES: Final = ("goid", "stack_id", "pc", "lost")


def part_name(number: int) -> str:
    """File name of a table's part, from 0."""
    return f"part-{number:05d}.parquet"


def _delta_columns(table: Table) -> list[str]:
    return [
        column.name
        for column in table.columns
        if column.name.endswith(_DELTA_SUFFIXES) or column.name in _DELTA_NAMES
    ]


class _Aside:
    """A file in the folder ``folder_fd`` that has no name yet."""

    def __init__(self, folder_fd: int, name: str, owner: Owner) -> None:
        self._folder_fd = folder_fd
        self._name = name
        self._temporary: str | None = None
        try:
            fd = os.open(
                ".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _FILE_MODE, dir_fd=folder_fd
            )
        except OSError:
            # EOPNOTSUPP, EISDIR or EINVAL: which one depends on the filesystem. A folder that
            # cannot be written at all fails in the next line, with its own error.
            self._temporary = f".{name}.{os.getpid()}"
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
            fd = os.open(self._temporary, flags, _FILE_MODE, dir_fd=folder_fd)
        if owner is not None:
            os.fchown(fd, *owner)
        self.file = io.FileIO(fd, "w", closefd=True)

    def commit(self, replace: bool = False) -> None:
        """Give the file its name; FileExistsError if that is taken, unless ``replace``."""
        fd = self._folder_fd
        if self._temporary is None and replace:
            # There is no linkat that replaces, so a name aside is needed after all.
            self._temporary = f".{self._name}.{os.getpid()}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=fd)
            self._link(self._temporary)
        if self._temporary is None:
            self._link(self._name)
        else:
            os.rename(self._temporary, self._name, src_dir_fd=fd, dst_dir_fd=fd)
        self.file.close()

    def _link(self, name: str) -> None:
        source = f"/proc/self/fd/{self.file.fileno()}"
        os.link(source, name, dst_dir_fd=self._folder_fd, follow_symlinks=True)

    def discard(self) -> None:
        """Drop the file."""
        if not self.file.closed:
            self.file.close()
        if self._temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._folder_fd)


class HeldRoom:
    """Room on the disk, held until it is wanted: a full disk has some for the last manifest.

    Args:
        folder_fd: a folder of that disk.
        size: how many bytes.
        owner: whose they are, where a quota counts them.

    Raises:
        OSError: there is not so much.
    """

    def __init__(self, folder_fd: int, size: int, owner: Owner) -> None:
        self._aside = _Aside(folder_fd, "room", owner)
        try:
            os.posix_fallocate(self._aside.file.fileno(), 0, size)
        except BaseException:
            self.free()
            raise

    def free(self) -> None:
        """Give it back."""
        self._aside.discard()


def write_whole(folder_fd: int, name: str, text: str, owner: Owner) -> None:
    """Write ``name`` in a folder so that a reader sees all of the old text or all of the new."""
    aside = _Aside(folder_fd, name, owner)
    try:
        remaining = memoryview(text.encode())
        while remaining:
            remaining = remaining[aside.file.write(remaining) :]
        aside.commit(replace=True)
    except BaseException:
        aside.discard()
        raise


class PartWriter:
    """One part while it is written.

    Args:
        folder_fd: the table's folder.
        number: the part's number; its name follows from it.
        table: what it holds.
        owner: who the file shall belong to.
    """

    def __init__(self, folder_fd: int, number: int, table: Table, owner: Owner) -> None:
        delta = _delta_columns(table)
        self._aside = _Aside(folder_fd, part_name(number), owner)
        self.rows = 0
        self.bytes = 0
        try:
            self._writer = pq.ParquetWriter(
                self._aside.file,
                table.arrow_schema,
                compression="zstd",
                use_dictionary=[c.name for c in table.columns if c.name not in delta],
                column_encoding=dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
                data_page_version="2.0",
            )
        except BaseException:
            # Its first bytes are written here, and may find no room.
            self._aside.discard()
            raise

    def write(self, rows: pa.Table) -> None:
        """Append ``rows`` as one row group; OSError when the disk is full."""
        self._writer.write_table(rows)
        self.rows += rows.num_rows
        self.bytes = self._aside.file.tell()

    def close(self) -> None:
        """Finish the file and give it its name."""
        try:
            self._writer.close()
            self.bytes = self._aside.file.tell()
            self._aside.commit()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Drop the part."""
        # The writer has nowhere to write its footer to any more, and that is what is wanted.
        with contextlib.suppress(Exception):
            self._aside.discard()
        with contextlib.suppress(Exception):
            self._writer.close()
