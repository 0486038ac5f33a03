"""What was found out once and takes long to find again, as files in the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Final

from tracer.kernel.bcc_loader import cache_folder
from tracer.kernel.own_files import is_own

__all__ = ["keep", "kept"]

_LIMIT: Final = 16 << 20
_KEPT_MOST: Final = 24
"""Files: programs of some modes, of the last few versions."""


def kept(*key: str) -> str:
    """What is kept by a key; empty where nothing is, or others may have written it."""
    try:
        path = cache_folder() / _name(*key)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd) as file:
            # Code for the kernel is taken from nobody but the one who loads it.
            if all(map(is_own, (os.fstat(file.fileno()), path.parent.lstat()))):
                return file.read(_LIMIT)
    except (OSError, UnicodeDecodeError):
        pass
    return ""


def keep(text: str, *key: str) -> None:
    """Keep it by a key; what cannot be kept is found again."""
    with contextlib.suppress(OSError):
        folder = cache_folder()
        old = sorted(folder.glob("programs-*.json"), key=lambda path: path.stat().st_mtime)
        for path in old[:-_KEPT_MOST]:
            path.unlink(missing_ok=True)
        aside = folder / f".{_name(*key)}.{os.getpid()}"
        aside.touch(mode=0o644)
        aside.write_text(text, "utf-8")
        aside.rename(folder / _name(*key))


def _name(*key: str) -> str:
    return f"programs-{hashlib.sha256(chr(0).join(key).encode()).hexdigest()[:32]}.json"
