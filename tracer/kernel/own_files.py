"""Files that no other user can have changed: root compiles them, or loads them into the kernel."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["is_own", "is_own_tree"]

_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def is_own(status: os.stat_result) -> bool:
    """Whether a file or folder is the caller's, and only the caller may write it."""
    return status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS


def is_own_tree(folder: Path) -> bool:
    """Whether a folder and all folders in it are; a link in the place of one is not.

    What is no folder can only have come there by who may write the folder.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or not is_own(status):
        return False
    with os.scandir(folder) as entries:
        folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return all(map(is_own_tree, folders))
