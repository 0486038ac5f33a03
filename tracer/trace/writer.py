"""Writing a trace, part by part, while it is captured.

A new part begins when the current one is large or old. So a capture that is killed loses at most
its last seconds, and memory does not grow.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa

from tracer.errors import PretakeError
from tracer.trace.manifest import MANIFEST_NAME, Manifest
from tracer.trace.parts import HeldRoom, Owner, PartWriter, write_whole
from tracer.trace.schema import TABLES

__all__ = ["TraceWriter", "check_output"]

_ROW_GROUP_ROWS: Final = 1 << 19
_PART_BYTES: Final = 64 << 20
_PART_SECONDS: Final = 5.0
_MANIFEST_ROOM: Final = 128 << 10
"""What a manifest takes at most, as a rule, with another of its size until it is in place."""


class TraceWriter:
    """Writes a trace, part by part.

    A part is rotated when it reaches 64 MB or 5 s.

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
        with self._disk():
            self._room = HeldRoom(self._fd, _MANIFEST_ROOM, owner)
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
            write_whole(self._fd, MANIFEST_NAME, manifest.to_json(), self._owner)

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
        self._room.free()
        # By its descriptor: who gave up its rights may not go the way that leads there.
        with os.scandir(self._fd) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            shutil.rmtree(name, ignore_errors=True, dir_fd=self._fd)
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._fd)
        self._close_fds()
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _finish(self, manifest: Manifest) -> None:
        self._discard_open()
        manifest.events = dict(self.rows)
        # What found no room on the disk is lost as well as what found none in a ring.
        manifest.lost |= {name: sent - self.rows[name] for name, sent in manifest.sent.items()}
        manifest.capture.bytes = self.bytes
        total = sum(self.rows.values())
        manifest.capture.bytes_per_event = self.bytes / total if total else None
        manifest.complete = True
        self._room.free()
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
    if path.is_symlink() or not (path / MANIFEST_NAME).is_file():
        raise PretakeError(
            f"{path} exists and is no trace, so --force does not replace it",
            "choose another output or remove it yourself",
        )
