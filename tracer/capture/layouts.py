"""Tells the BPF programs, in their maps, where each process keeps its runtime."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tracer.errors import PretakeError
from tracer.kernel.loaded import Loaded
from tracer.targets.layout import LAYOUT_DTYPE, RuntimeLayout
from tracer.targets.program_file import open_program

__all__ = ["ExecImage", "FileIdentity", "Layouts"]

_CLOCK_UNKNOWN: Final = -(1 << 63)  # CLOCK_UNKNOWN of runtime_images.bpf.c


@dataclass(frozen=True)
class FileIdentity:
    """A file with the contents that it had at a moment.

    Two file systems may have one inode number, and a file that is written in place keeps its
    own: so its device and the time of its last change are a part of it.

    Args:
        device: as the kernel counts it, 12 bits of major number and 20 of minor.
        inode: its number.
        size: bytes.
        changed_ns: when it or its inode changed last, since 1970 (``ctime``).
    """

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """As stat(2) tells it. On an overlay and on btrfs the kernel may have another device."""
        device = _as_kernel(os.major(status.st_dev), os.minor(status.st_dev))
        return cls(device, status.st_ino, status.st_size, status.st_ctime_ns)

    @classmethod
    def of_open(cls, fd: int) -> FileIdentity:
        """As the BPF programs read it of an open file: with its super_block's device.

        stat(2) tells a device of each subvolume on btrfs, and of each layer on an overlay of
        several file systems; /proc/PID/mountinfo tells the super_block's (fs/proc_namespace.c,
        show_mountinfo). A file of another mount namespace is not there: it is as stat(2) tells it.
        """
        status = os.fstat(fd)
        known = cls.of(status)
        with contextlib.suppress(OSError, ValueError, StopIteration):
            about = Path(f"/proc/self/fdinfo/{fd}").read_text("utf-8", "surrogateescape").split()
            mount = about[about.index("mnt_id:") + 1]
            table = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
            # ID, PARENT, MAJOR:MINOR, …
            device = next(row[2] for row in map(str.split, table) if row[0] == mount)
            major, _, minor = device.partition(":")
            # Since 3845f256a8b5 ("procfs/dmabuf: add inode number to
            # /proc/*/fdinfo", Linux 5.14).
            inode = int(about[about.index("ino:") + 1]) if "ino:" in about else known.inode
            return dataclasses.replace(
                known, device=_as_kernel(int(major), int(minor)), inode=inode
            )
        return known

    def open_by(self, path: Path) -> int | None:
        """A descriptor of what lies at a path; None where that is another file, or none."""
        with contextlib.suppress(PretakeError):
            fd = open_program(path)
            if FileIdentity.of_open(fd) == self:
                return fd
            os.close(fd)
        return None

    def is_of(self, status: os.stat_result) -> bool:
        """Whether a file that was opened by its process is what the kernel ran then.

        Its device and inode may be another's on an overlay. A file that was deleted since has
        changed by that; but nobody can have written it by its name.
        """
        if status.st_size != self.size:
            return False
        if status.st_ctime_ns == self.changed_ns:
            return True
        return status.st_nlink == 0 and status.st_mtime_ns <= self.changed_ns

    @property
    def key(self) -> np.ndarray:
        """As ``struct runtime_binary``."""
        seconds, rest_ns = divmod(self.changed_ns, 1_000_000_000)
        words = [self.device, self.inode, self.size, seconds, rest_ns]
        return np.array(words, np.uint64)


@dataclass(frozen=True)
class ExecImage:
    """What a process became by an exec, as the kernel told it there.

    Args:
        binary: the program.
        start_code: run-time address of its first executable segment.
        end_code: the address behind its last one.
        in_reach: whether its layout was in place before its first instruction.
        ahead_ns: how far ahead of the machine's its CLOCK_MONOTONIC is; None if that is unknown.
    """

    binary: FileIdentity
    start_code: int
    end_code: int
    in_reach: bool
    ahead_ns: int | None


class Layouts:
    """The layouts that the BPF programs read by: of processes, and of binaries to come.

    A process is named by its number (tgid) and its generation, which is how many execs of it
    were seen: so what is told late of a program never meets the next one.

    Args:
        loaded: the programs.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def set_layout(self, pid: int, generation: int, layout: RuntimeLayout) -> None:
        """Tell where a process that runs already keeps its runtime.

        Raises:
            PretakeError: there is no room.
        """
        self._loaded.update("runtime_layouts", _image(pid, generation), layout.pack())

    def forget(self, pid: int, generation: int) -> None:
        """Let go of what was told of a process; nothing happens where that is gone already."""
        self._loaded.delete("runtime_layouts", _image(pid, generation))

    def set_binary(self, identity: FileIdentity, layout: RuntimeLayout) -> None:
        """Tell the layout of a binary, for every target process that will exec it.

        Those that were not exec'd for longest give way.
        """
        self._loaded.update("runtime_binaries", identity.key, layout.pack())

    def layout_of(self, pid: int, generation: int) -> np.ndarray | None:
        """Where a process keeps its runtime: a record of ``LAYOUT_DTYPE``, or None."""
        found = self._loaded.look_up("runtime_layouts", _image(pid, generation))
        return None if found is None else found.view(LAYOUT_DTYPE)

    def exec_image(self, pid: int, generation: int) -> ExecImage | None:
        """What a process became; None where that is long ago."""
        found = self._loaded.look_up("exec_images", _image(pid, generation))
        if found is None:
            return None
        device, inode, size, changed_s, rest_ns = (int(word) for word in found["binary"].item())
        identity = FileIdentity(device, inode, size, changed_s * 1_000_000_000 + rest_ns)
        start, end = int(found["start_code"]), int(found["end_code"])
        ahead_ns = int(found["ahead_ns"])
        known_ns = None if ahead_ns == _CLOCK_UNKNOWN else ahead_ns
        return ExecImage(identity, start, end, bool(found["in_reach"]), known_ns)

    def exec_path(self, pid: int, generation: int) -> Path | None:
        """What it was exec'd as, by its own view of the files; None where that is unknown."""
        found = self._loaded.look_up("exec_paths", _image(pid, generation))
        name = b"" if found is None else bytes(found["name"]).partition(b"\0")[0]
        return Path(os.fsdecode(name)) if name.startswith(b"/") else None

    def set_reference(self, layout: RuntimeLayout) -> None:
        """Tell the reference runtime's layout, for every target process that starts an M."""
        self._loaded.update("reference_layout", np.array(0, np.uint32), layout.pack())

    def reference_mstarts(self) -> int:
        """How many Ms of reference runtimes began in targets."""
        return int(self._loaded.read("reference_mstarts", 0))

    def missed(self) -> int:
        """Processes for whose layout there was no room when they began."""
        return int(self._loaded.read("runtime_layouts_missed", 0))


def _as_kernel(major: int, minor: int) -> int:
    """A device as the kernel has it (include/linux/kdev_t.h, MKDEV)."""
    return major << 20 | minor


def _image(pid: int, generation: int) -> np.ndarray:
    return np.array([pid, generation], np.uint32)
