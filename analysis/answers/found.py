"""Traces below folders and addresses of stores.

Example: ``s3://bucket/dumps`` has ``host7/api/….pretake`` of 40 hosts: each folder below it that
has a manifest is a trace. ``/var/lib/pretake/*`` is found by a pattern, as a shell has them.

A folder whose name says that it is a trace and that has no manifest was left half sent or half
written. It is told, and is no trace. Names that begin with a dot are being written.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

__all__ = ["Found", "find_traces"]

_MANIFEST: Final = "manifest.json"
_ENDING: Final = ".pretake"


class Found(NamedTuple):
    """What there is.

    Args:
        places: folders, or addresses; each once, in the order of their names below what was asked.
        problems: places that have no trace, or cannot be looked at, and why.
    """

    places: list[str]
    problems: list[tuple[str, str]]


def find_traces(asked: Sequence[str]) -> Found:
    """Look for traces.

    Args:
        asked: folders, addresses that fsspec opens, or patterns of either.
    """
    places: dict[str, None] = {}
    problems: list[tuple[str, str]] = []
    for name in asked:
        try:
            whole, broken = _below(name) if "://" in name else _here(name)
        except ImportError:
            problems.append((name, "fsspec or its package for it is not installed"))
            continue
        except Exception as error:  # libraries of stores raise what they like
            lines = str(error).splitlines()
            problems.append((name, lines[0] if lines else type(error).__name__))
            continue
        if not (whole or broken):
            problems.append((name, "no trace is there"))
        places.update(dict.fromkeys(whole))
        problems += (
            (place, "it has no manifest: it was not written to its end") for place in broken
        )
    return Found(list(places), problems)


def _here(name: str) -> tuple[list[str], list[str]]:
    # Path.glob takes no pattern that begins with a slash.
    folders = [name] if Path(name).exists() else sorted(glob.glob(name))  # noqa: PTH207
    files = (
        f"{folder}/{file}"
        for root in folders
        for folder, inner, files in os.walk(root)
        for file in _visible(inner, files)
    )
    return _sorted_out(files)


def _visible(inner: list[str], files: list[str]) -> list[str]:
    inner[:] = sorted(folder for folder in inner if not folder.startswith("."))
    return files


def _below(name: str) -> tuple[list[str], list[str]]:
    import fsspec

    files, root = fsspec.core.url_to_fs(name, use_listings_cache=False)
    roots = files.glob(root) if glob.has_magic(root) else [root]
    found = (path for place in roots for path in files.find(place))
    visible = (path for path in found if "/." not in path)
    whole, broken = _sorted_out(visible)
    return [files.unstrip_protocol(p) for p in whole], [files.unstrip_protocol(p) for p in broken]


def _sorted_out(files: Iterable[str]) -> tuple[list[str], list[str]]:
    """Folders with a manifest, and those that have none and are called traces."""
    whole: set[str] = set()
    called: set[str] = set()
    for file in files:
        path = PurePosixPath(file)
        if path.name == _MANIFEST:
            whole.add(str(path.parent))
        called.update(str(above) for above in path.parents if above.name.endswith(_ENDING))
    return sorted(whole), sorted(called - whole)
