"""The freezers of cgroups, of both versions."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

__all__ = ["FREEZERS", "Freezer", "freezer_of"]

FREEZERS: Final = {
    # file system: where it may be, the file that freezes, and what freezes and what thaws
    "cgroup": (("/sys/fs/cgroup/freezer",), "freezer.state", "FROZEN", "THAWED"),
    "cgroup2": (("/sys/fs/cgroup", "/sys/fs/cgroup/unified"), "cgroup.freeze", "1", "0"),
}


class Freezer(NamedTuple):
    """A cgroup of its own; its processes go back to ``root`` in the end."""

    root: Path
    group: Path
    file: Path
    freeze: str
    thaw: str

    @property
    def is_frozen(self) -> bool:
        """Whether all threads in it stand still."""
        if self.file.name == "freezer.state":
            return self.file.read_text().strip() == self.freeze
        return "frozen 1" in (self.group / "cgroup.events").read_text()


@contextlib.contextmanager
def freezer_of(kind: str) -> Iterator[Freezer]:
    """One of :data:`FREEZERS`; a test is left out where no such is mounted."""
    places, name, freeze, thaw = FREEZERS[kind]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    mounted = [line.split()[1] for line in mounts if line.split()[2] == kind]
    root = next((Path(place) for place in places if place in mounted), None)
    if root is None:
        pytest.skip(f"no freezer of {kind} is mounted here")
    group = Path(tempfile.mkdtemp(prefix="pretake-frozen-", dir=root))
    yield Freezer(root, group, group / name, freeze, thaw)
    group.rmdir()
