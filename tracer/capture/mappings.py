"""Which files a process has mapped, and where: /proc/PID/maps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

__all__ = ["Mapping", "mappings_of", "may_have_runtime"]


@dataclass(frozen=True)
class Mapping:
    """A piece of a file in a process's memory.

    Args:
        begin: its first address.
        end: the address behind its last.
        offset: of its first byte in the file.
        executable: whether it is code.
        device: of the file, as stat(2) tells it (on an overlay, as the layer below has it).
        inode: of the file.
        path: the file's name, when it was mapped.
    """

    begin: int
    end: int
    offset: int
    executable: bool
    device: int
    inode: int
    path: str

    @property
    def name(self) -> str:
        """Below /proc/PID: leads to the file, whatever its name is by now."""
        return f"map_files/{self.begin:x}-{self.end:x}"


def mappings_of(maps: bytes) -> list[Mapping]:
    """The mapped files of a process, in order of addresses.

    Args:
        maps: the text of /proc/PID/maps.
    """
    found = []
    for line in os.fsdecode(maps).splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or fields[4] == "0":
            continue
        begin, end = (int(address, 16) for address in fields[0].split("-"))
        major, minor = (int(number, 16) for number in fields[3].split(":"))
        found.append(
            Mapping(
                begin,
                end,
                int(fields[2], 16),
                "x" in fields[1],
                os.makedev(major, minor),
                int(fields[4]),
                fields[5],
            )
        )
    return found


_OTHERS: Final = ("ld-linux", "libc.so", "libc-", "libm.so", "libpthread", "libdl", "libpython")


def may_have_runtime(mapping: Mapping, program: str | None) -> bool:
    """Whether a mapped file is worth a look; most are known not to be by their names.

    Args:
        mapping: a piece of the file.
        program: path of the process's program, which always is.
    """
    name = os.path.basename(mapping.path)  # noqa: PTH119
    return mapping.path == program or not name.startswith(_OTHERS)
