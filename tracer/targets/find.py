"""Which runtime a program or a running process has."""

from __future__ import annotations

import dataclasses
import errno
import os
import time
from pathlib import Path

from tracer.errors import PretakeError
from tracer.targets import jail, reference
from tracer.targets.binary import NoRuntime, RuntimeBinary
from tracer.targets.program_file import open_program

__all__ = ["load_bias", "look_at", "runtime_of", "runtimes_of_process"]

_START_CODE = 26 - 3  # proc(5) counts from 1; the third is the first after the name
_HIDDEN = 1
"""Told in place of an address to who may not trace the process."""
_EXEC_S = 1.0
"""Far longer than an exec takes that goes on; one that has ended never gets there."""
_AGAIN_S = 0.001


def look_at(path: Path, *, deep: bool = True) -> RuntimeBinary | NoRuntime:
    """The runtime in a program or library, or what the file is instead.

    It is read by a process that can do nothing else (:mod:`tracer.targets.jail`).

    Args:
        path: the file.
        deep: read its debug information also where the shipped tables know its version.

    Raises:
        PretakeError: it cannot be read, is no regular file, or is damaged.

    Example:
        ``look_at(Path("./server")).version``
    """
    fd = open_program(path)
    try:
        return jail.look(fd, path, deep=deep)
    finally:
        os.close(fd)


def runtime_of(path: Path, *, deep: bool = True) -> RuntimeBinary | None:
    """The same, where only a runtime is of interest: None where there is none to read.

    Raises:
        PretakeError: it cannot be read, is no regular file, or is damaged.
    """
    found = look_at(path, deep=deep)
    return found if isinstance(found, RuntimeBinary) else None


def runtimes_of_process(pid: int) -> list[RuntimeBinary]:
    """The runtimes in a running process, their layouts as they lie in its memory now.

    The files are named below ``/proc/PID``: so they are found in any container, and also where
    they were replaced or deleted since the process began.

    Raises:
        PretakeError: the process is gone, or may not be read.
    """
    process = Path(f"/proc/{pid}")
    found: list[RuntimeBinary] = []
    try:
        program = runtime_of(process / "exe")
        if program is not None and program.runtime == "go":
            layout = program.layout.at(load_bias(pid, program.layout.first_code))
            found.append(dataclasses.replace(program, layout=layout))
        for library in _mapped(process, reference.LIBRARY):
            runtime = runtime_of(library)
            if runtime is not None and runtime.runtime == "reference":
                found.append(runtime)
    except OSError as error:
        raise PretakeError(
            f"cannot read process {pid}: {error.strerror}", "run it with sudo, while it lives"
        ) from error
    return found


def load_bias(pid: int, first_code: int) -> int:
    """How many bytes higher than linked a process has its program loaded; 0 if not PIE.

    Args:
        pid: the process.
        first_code: link-time address of the program's first executable segment.

    Raises:
        OSError: the process is gone, or may not be read.
    """
    until_s = time.monotonic() + _EXEC_S
    # In the middle of its exec a process has the program's name, and nothing of it in its memory.
    while not (start_code := _start_code(pid)):
        if time.monotonic() > until_s:
            raise ProcessLookupError(errno.ESRCH, "it has no program in its memory")
        time.sleep(_AGAIN_S)
    if start_code == _HIDDEN:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return start_code - first_code


def _start_code(pid: int) -> int:
    """Where a process has its program's first code (proc(5), startcode)."""
    # The name stands in brackets and may itself have any of them.
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[_START_CODE])


def _mapped(process: Path, prefix: str) -> list[Path]:
    """Files that a process has mapped and whose name begins so, each once."""
    paths: dict[str, Path] = {}
    for line in os.fsdecode((process / "maps").read_bytes()).splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and os.path.basename(fields[5]).startswith(prefix):  # noqa: PTH119
            # By its range of addresses, which leads there whatever its name is by now.
            begin, end = (int(address, 16) for address in fields[0].split("-"))
            paths.setdefault(fields[5], process / "map_files" / f"{begin:x}-{end:x}")
    return list(paths.values())
