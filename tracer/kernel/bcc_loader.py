"""Debian's bcc, from any Python, with kernel headers that it accepts.

``bcc`` is not on PyPI (the package of that name there is a crystal-lattice library). So the
module that the distribution installed for its own Python is loaded by its path. It is plain
Python over ``libbcc.so`` and works in other Pythons too. Its folder is never put on
``sys.path``.

bcc cannot compile C without kernel headers. Any version will do, because the programs here read no
kernel struct through headers.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

from tracer.errors import PretakeError
from tracer.kernel.own_files import is_own, is_own_tree

__all__ = [
    "INSTALL",
    "TRACEFS",
    "cache_folder",
    "calling_user",
    "find_headers",
    "kernel_source",
    "load_bcc",
    "merge_headers",
    "mount_tracefs",
    "tracefs_mounted",
]

INSTALL: Final = "apt-get install python3-bpfcc linux-headers-$(dpkg --print-architecture)"
"""The command that installs what bcc needs on Debian."""

TRACEFS: Final = Path("/sys/kernel/tracing")
"""Where tracefs belongs."""

_DIST_PACKAGES: Final = Path("/usr/lib/python3/dist-packages")
_USR_SRC: Final = Path("/usr/src")
_MODULES: Final = Path("/lib/modules")
_SYSTEM_CACHE: Final = Path("/var/cache/pretake")


@functools.cache
def load_bcc() -> ModuleType:
    """The distribution's ``bcc`` package.

    Raises:
        PretakeError: it is not installed, or its library cannot be loaded.
    """
    folder = _DIST_PACKAGES / "bcc"
    spec = importlib.util.spec_from_file_location(
        "bcc", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise PretakeError("bcc is not installed", INSTALL)
    module = importlib.util.module_from_spec(spec)
    # bcc's own modules import each other by this name.
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules["bcc"]
        raise PretakeError(f"bcc cannot be loaded ({error})", INSTALL) from error
    return module


def tracefs_mounted() -> bool:
    """Whether tracefs is where it belongs."""
    return (TRACEFS / "events").is_dir()


def mount_tracefs() -> None:
    """Mount tracefs if it is not mounted.

    Raises:
        PretakeError: the caller may not, or the kernel has none.
    """
    if tracefs_mounted():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"nodev", bytes(TRACEFS), b"tracefs", 0, None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise PretakeError(
            f"tracefs cannot be mounted ({reason})", f"as root: mount -t tracefs nodev {TRACEFS}"
        )


def calling_user() -> tuple[int, int] | None:
    """User and group of who called sudo; None without sudo.

    Files that pretake makes belong to that user.
    """
    if os.geteuid() != 0:
        return None
    try:
        return int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    except (KeyError, ValueError):
        return None


def cache_folder() -> Path:
    """Where pretake keeps what it makes of this machine's kernel; made if it is not there.

    For root ``/var/cache/pretake``, also under sudo: what root compiles from, and loads into the
    kernel, must not lie where somebody else can write. Otherwise the user's own cache.
    """
    if os.geteuid() == 0:
        folder = _SYSTEM_CACHE
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pretake"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return folder


def find_headers() -> tuple[Path, ...] | None:
    """Kernel headers that bcc can use, best first in meaning, last over first in effect.

    Returns:
        One whole tree (headers of the running kernel, or of a distribution that keeps them in
        one), or two that must be laid over each other (Debian: ``-common``, then the
        architecture's); None if there are none.
    """
    running = _MODULES / os.uname().release / "build"
    candidates = [running, *_newest_first(_USR_SRC.glob("linux-headers-*"))]
    for tree in candidates:
        if not (tree / "include" / "generated" / "autoconf.h").is_file():
            continue
        if (tree / "include" / "linux" / "kconfig.h").is_file():
            return (tree.resolve(),)
        # A headers package that leaves out what all architectures share.
        common = tree.resolve().with_name(re.sub(r"-[a-z0-9]+$", "-common", tree.resolve().name))
        if (common / "include" / "linux" / "kconfig.h").is_file():
            return (common, tree.resolve())
    return None


def _newest_first(trees: Iterator[Path]) -> list[Path]:
    def version(tree: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", tree.name)]

    return sorted(trees, key=version, reverse=True)


def kernel_source() -> Path:
    """A folder for bcc's ``BCC_KERNEL_SOURCE``, made in the cache if it has to be.

    Raises:
        PretakeError: there are no headers.
    """
    trees = find_headers()
    if trees is None:
        raise PretakeError("there are no kernel headers, and bcc compiles with none", INSTALL)
    return trees[0] if len(trees) == 1 else merge_headers(*trees)


def merge_headers(below: Path, above: Path, into: Path | None = None) -> Path:
    """Lay one header tree over another, as links.

    Args:
        below: the tree that all architectures share.
        above: the tree whose files win.
        into: where; by default a folder of pretake's cache, named after ``above``.

    Returns:
        The merged tree. One that is there already is taken as it is.

    Raises:
        PretakeError: somebody else may write there, or has.
    """
    target = into or cache_folder() / "kernel-headers" / above.name
    target.parent.mkdir(mode=0o755, exist_ok=True)
    for folder in (target.parent.parent, target.parent):
        if into is None and not is_own(folder.lstat()):
            raise PretakeError(
                f"others may write to {folder}, which programs for the kernel are compiled from",
                f"look at it, then: rm -r {folder}",
            )
    if target.is_dir():
        if not is_own_tree(target):
            raise PretakeError(
                f"others may have changed {target}, which programs for the kernel are compiled"
                " from",
                f"rm -r {target}",
            )
        return target
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    aside.mkdir(mode=0o755)
    _merge(below, above, aside)
    try:
        aside.rename(target)
    except OSError:
        # Somebody else made it meanwhile; one is as good as the other.
        shutil.rmtree(aside)
        if not target.is_dir():
            raise
    return target


def _merge(below: Path, above: Path, target: Path) -> None:
    names = {path.name for tree in (below, above) for path in tree.iterdir()}
    for name in names:
        lower, upper, merged = below / name, above / name, target / name
        if lower.is_dir() and upper.is_dir():
            merged.mkdir(mode=0o755)
            _merge(lower, upper, merged)
        else:
            merged.symlink_to(upper if upper.exists() else lower)
