"""The binaries of a capture: each is inspected once, and kept open for its symbols."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tracer.capture.keeper import Place
from tracer.capture.layouts import FileIdentity
from tracer.errors import PretakeError
from tracer.targets import NoRuntime, RuntimeBinary, jail
from tracer.targets.layout import Probe
from tracer.trace.unknown import Missing, counted

__all__ = ["Binaries", "Known"]

_OPEN_MOST: Final = 8192
_RESERVED: Final = 256
"""Descriptors that are left to everything else."""
_PLACE_BYTES: Final = 16
_SAMPLES, _SAMPLE_BYTES = 64, 1024
_MISSING_MOST: Final = 100


@dataclass
class Known:
    """A binary that was looked at.

    Args:
        identity: of its contents.
        name: its path, when it was looked at.
        contents: its size, when it was written last and a digest of samples of it; a deletion or a
            new name leave these as they are.
        binary: the runtime in it; None where there is none.
        no_runtime: what it is instead.
        fd: a descriptor of it; None where there were too many.
        changed: whether it was written since the kernel ran it, or while it was looked at, so that
            nothing is known.
        places: where probes go.
    """

    identity: FileIdentity
    name: str
    contents: tuple[int, int, bytes]
    binary: RuntimeBinary | None = None
    no_runtime: NoRuntime | None = None
    fd: int | None = None
    changed: bool = False
    places: list[Place] = field(default_factory=list)

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The probes that its runtime would have."""
        return self.binary.probes if self.binary is not None else ()


class Binaries:
    """Looks at binaries, each once, and holds them open.

    A program is often gone when its symbols are asked for (``go build`` removes what it made),
    so each is held by a descriptor, as many as the process may have: up to 8,192.
    """

    def __init__(self) -> None:
        self._lacking: list[Missing] = []
        self._not_told = 0
        self._not_held = 0
        self._known: dict[FileIdentity, Known] = {}
        self._to_read: deque[Known] = deque()
        self._reading: tuple[Known, jail.LookUp] | None = None
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _OPEN_MOST + _RESERVED
        if soft != resource.RLIM_INFINITY and soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self._room = _OPEN_MOST
        if soft != resource.RLIM_INFINITY:
            self._room = min(self._room, max(soft - _RESERVED, 0))

    @property
    def missing(self) -> list[Missing]:
        """What could not be had of them, and why."""
        return [
            *self._lacking,
            *counted(self._not_told, "{} more binaries, or parts of them", "as above"),
            *counted(
                self._not_held,
                "symbols of {} binaries, if they are gone",
                "more were run than can be held open (ulimit -n)",
            ),
        ]

    def find(self, identity: FileIdentity) -> Known | None:
        """One that was looked at already."""
        return self._known.get(identity)

    def also(self, identity: FileIdentity, known: Known) -> None:
        """Know a binary by another identity too: the kernel's own, on an overlay."""
        self._known.setdefault(identity, known)

    def look(self, fd: int, told: FileIdentity | None = None) -> tuple[Known, bool]:
        """Look at a file.

        Args:
            fd: a descriptor of it, which is closed here, sooner or later.
            told: what the kernel ran; None where nobody can have written it since. A program that
                has ended may be replaced while it is looked at.

        Returns:
            What is known of it, and whether that is new.
        """
        identity = FileIdentity.of_open(fd)
        known = self._known.get(identity)
        if known is not None and not _is_written(fd, told):
            os.close(fd)
            return known, False
        held = Path(f"/proc/self/fd/{fd}")
        known = Known(identity, _name(held), _contents(fd))
        # Not before: who writes may stand still while the file is read.
        if _is_written(fd, told):
            os.close(fd)
            known.changed = True
            return known, True
        try:
            found: RuntimeBinary | NoRuntime | None = jail.look(fd, held, deep=False)
            problem = None
        except PretakeError as error:
            found, problem = None, f"{error}".replace(str(held), known.name)
        if not _is_still(fd, known):
            # What was read may be of both. What it is by now is looked at when it is run.
            os.close(fd)
            known.changed = True
            return known, True
        self._known[identity] = known
        if problem is not None:
            self._lacks("runtime", problem)
        if not isinstance(found, RuntimeBinary):
            known.no_runtime = found
            os.close(fd)
            return known, True
        known.binary = found
        with contextlib.suppress(OSError):
            known.places = [
                (probe.handler, probe.file_offset, os.pread(fd, _PLACE_BYTES, probe.file_offset))
                for probe in found.probes
            ]
        if self._room > 0:
            self._room -= 1
            known.fd = fd
            self._to_read.append(known)
        else:
            self._not_held += 1
            os.close(fd)
        return known, True

    def in_use(self, known: Known) -> None:
        """Tell what a runtime lacks that is read."""
        if known.binary is not None:
            for lack in known.binary.missing:
                why = lack.why.replace(str(known.binary.path), known.name)
                self._lacks(lack.what, why, lack.mend)

    def read_further(self) -> list[Known]:
        """Go on with reading debug information, one binary at a time, beside the capture.

        Returns:
            Those whose layout it tells otherwise than the shipped table did.
        """
        if self._reading is None:
            if self._to_read:
                known = self._to_read.popleft()
                if known.fd is not None:
                    held = Path(f"/proc/self/fd/{known.fd}")
                    with contextlib.suppress(PretakeError):
                        self._reading = known, jail.begin_look(known.fd, held, deep=True)
            return []
        known, look = self._reading
        if not look.ready():
            return []
        self._reading = None
        with contextlib.suppress(PretakeError):
            further = look.result()
            if not isinstance(further, RuntimeBinary) or known.binary is None:
                return []
            if known.fd is None or not _is_still(known.fd, known):
                return []
            if further.layout != known.binary.layout:
                known.binary = further
                return [known]
        return []

    def open(self, known: Known) -> int | None:
        """A descriptor of a binary, to be closed; None where it is there no more."""
        with contextlib.suppress(OSError):
            if known.fd is not None:
                fd = os.dup(known.fd)
            else:
                fd = os.open(known.name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if _is_still(fd, known):
                return fd
            os.close(fd)
        return None

    def close(self) -> None:
        """Let go of all."""
        if self._reading is not None:
            with contextlib.suppress(PretakeError):
                self._reading[1].result()
            self._reading = None
        for known in self._known.values():
            if known.fd is not None:
                os.close(known.fd)
                known.fd = None
        self._known.clear()

    def _lacks(self, what: str, why: str, mend: str = "") -> None:
        told = Missing(what, why, mend)
        if told in self._lacking:
            return
        if len(self._lacking) < _MISSING_MOST:
            self._lacking.append(told)
        else:
            self._not_told += 1


def _is_written(fd: int, told: FileIdentity | None) -> bool:
    """Whether a file is another by now than the kernel ran."""
    return told is not None and not told.is_of(os.fstat(fd))


def _is_still(fd: int, known: Known) -> bool:
    """Whether a file has the contents that were looked at."""
    return FileIdentity.of_open(fd) == known.identity or _contents(fd) == known.contents


def _contents(fd: int) -> tuple[int, int, bytes]:
    status = os.fstat(fd)
    digest = hashlib.sha256()
    for number in range(_SAMPLES):
        digest.update(os.pread(fd, _SAMPLE_BYTES, status.st_size * number // _SAMPLES))
    return status.st_size, status.st_mtime_ns, digest.digest()


def _name(path: Path) -> str:
    """The file that a path below /proc leads to."""
    try:
        return str(path.readlink())
    except OSError:
        return str(path)
