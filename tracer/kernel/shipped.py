"""Byte code that a wheel brings, so that a machine without a compiler can capture.

``make wheels`` compiles the programs of every mode and puts what the compiler made into
``tracer/bpf/x86_64.zip``: one :class:`~tracer.kernel.object.Object` for each set of programs, and
the digest of the sources that they were made of. A clone has no such file.

Byte code of other sources than those beside it is never used.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import resources
from importlib.resources.abc import Traversable
from multiprocessing import get_context
from typing import Final

from tracer.errors import PretakeError
from tracer.kernel.compiler import (
    compile_programs,
    compile_return_flag,
    compiler_version,
    sources_digest,
)
from tracer.kernel.object import Object

__all__ = ["Shipped", "archive_name", "archive_path", "ship", "variants", "write"]

_ABOUT: Final = "about.json"
_RETURN_FLAG: Final = "return_flag.json"
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError)
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Of every member, so that the same programs give the same file."""
_MODES: Final[tuple[dict[str, int], ...]] = (
    # Of record, and behind them of live: how transitions of a runtime are seen.
    *({}, {"INFER": 1}, {"INFER": 1, "PROBES_TOO": 1}),
    *({"LIVE": 1}, {"LIVE": 1, "INFER": 1}),
    *({"LIVE": 1, "LIVE_ROWS": 1}, {"LIVE": 1, "LIVE_ROWS": 1, "INFER": 1}),
)
_CALLS: Final[tuple[dict[str, int], ...]] = ({}, {"CALLS_EXACT": 1})
"""How system calls are seen: it is asked for, or the kernel shows no other way."""
_STORAGE: Final[tuple[dict[str, int], ...]] = ({}, {"STORAGE_REFUSES": 1})
"""By kernel: to Linux 6.1, or later."""


def variants() -> Iterator[dict[str, int]]:
    """The ``-D`` numbers of each set of programs that is shipped."""
    for parts in itertools.product(_MODES, _CALLS, _STORAGE):
        yield {name: value for part in parts for name, value in part.items()}


def archive_path() -> Traversable:
    """Where the byte code for this machine's architecture lies, if there is any."""
    return resources.files("tracer") / "bpf" / archive_name(platform.machine())


def archive_name(machine: str) -> str:
    """The file's name for an architecture, as ``uname -m`` calls it."""
    return f"{machine}.zip"


class Shipped:
    """The byte code beside these sources.

    Args:
        archive: the file; by default :func:`archive_path`.

    Attributes:
        made_by: the compiler, for people.

    Raises:
        PretakeError: there is none, it is damaged, or it was made of other sources.
    """

    def __init__(self, archive: Traversable | None = None) -> None:
        self._archive = archive or archive_path()
        try:
            about = json.loads(self._member(_ABOUT))
            digest, self.made_by = str(about["sources"]), str(about["made_by"])
        except FileNotFoundError as error:
            raise PretakeError(
                f"no byte code for {platform.machine()} is in this installation"
            ) from error
        except _DAMAGE as error:
            raise self._damaged(error) from error
        if digest != sources_digest():
            raise PretakeError("the byte code in this installation was made of other sources")

    def programs(self, defines: Mapping[str, int]) -> Object:
        """The programs of a mode.

        Args:
            defines: one of :func:`variants`.

        Raises:
            PretakeError: they are not there, or damaged.
        """
        return self._object(_name(defines))

    def return_flag(self) -> Object:
        """The program of :mod:`tracer.kernel.return_flag`; raises as :meth:`programs`."""
        return self._object(_RETURN_FLAG)

    def _object(self, name: str) -> Object:
        try:
            return Object.from_json(self._member(name))
        except (OSError, *_DAMAGE) as error:
            raise self._damaged(error) from error

    def _member(self, name: str) -> bytes:
        with self._archive.open("rb") as file, zipfile.ZipFile(file) as members:
            return members.read(name)

    def _damaged(self, error: Exception) -> PretakeError:
        return PretakeError(f"the byte code in {self._archive} is damaged ({error})")


def ship(path: str | os.PathLike[str], bcc_env: Mapping[str, str] | None = None) -> None:
    """Compile the programs of every mode, and write them into a file.

    The same sources and the same compiler give the same bytes.

    Args:
        path: the file.
        bcc_env: what bcc is told by its environment, to compile for another architecture.

    Raises:
        PretakeError: they cannot be compiled here.
    """
    # Processes of their own: where LLVM gives up, it ends the one that it is in.
    with ProcessPoolExecutor(
        mp_context=get_context("spawn"), initializer=_tell, initargs=(bcc_env or {},)
    ) as workers:
        try:
            flag = workers.submit(compile_return_flag).result()
            made = list(workers.map(compile_programs, variants()))
        except BrokenProcessPool as error:
            raise PretakeError("LLVM gave up on the BPF programs") from error
    write(path, compiler_version(), flag, list(zip(variants(), made, strict=True)))


def _tell(env: Mapping[str, str]) -> None:
    os.environ.update(env)


def write(
    path: str | os.PathLike[str],
    made_by: str,
    return_flag: Object,
    programs: Sequence[tuple[Mapping[str, int], Object]],
) -> None:
    """Write what was compiled of the sources as they are now.

    Args:
        path: the file.
        made_by: the compiler, for people.
        return_flag: the program of :mod:`tracer.kernel.return_flag`.
        programs: the ``-D`` numbers of each set of programs, and the set.
    """
    with zipfile.ZipFile(path, "w") as members:

        def put(name: str, text: str) -> None:
            member = zipfile.ZipInfo(name, _EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            members.writestr(member, text)

        put(_ABOUT, json.dumps({"sources": sources_digest(), "made_by": made_by}))
        put(_RETURN_FLAG, return_flag.to_json())
        for defines, made in programs:
            put(_name(defines), made.to_json())


def _name(defines: Mapping[str, int]) -> str:
    asked = [name.lower() for name, value in sorted(defines.items()) if value]
    return f"programs{'-'.join(['', *asked])}.json"
