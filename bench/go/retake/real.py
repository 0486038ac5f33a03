"""Real programs with the overlay: etcd and gVisor's network stack, from Debian's packages.

Debian ships both as sources for GOPATH mode. They are unpacked once into the user's cache, with
all that they import, and nothing is installed.

gVisor is of 2022 and refuses Go from 1.21 on by build tags, since it takes some functions of the
runtime by name. Those that its network stack needs are there to this day, so the overlay lets the
files in. One thing is taken out: it kept the scheduler from waking a thread by a field of the
runtime that has moved. With ``hint=False`` the call that gives P away before ``ppoll``
(``entersyscallblock``) becomes the usual one, and that is all that differs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.go.retake.build import build
from bench.go.retake.overlay import Place, default_folder, inserted, make_overlay
from tests.go import toolchains
from tools.debian import unpack_packages
from tracer.errors import PretakeError

__all__ = ["build_etcd", "build_gvisor"]

_SUITE: Final = "bookworm"
_PACKAGES: Final = ("golang-etcd-server-dev", "golang-gvisor-gvisor-dev")
_GVISOR: Final = "gvisor.dev/gvisor/pkg"
_PROGRAM: Final = Path(__file__).with_name("gvisor") / "main.go"

_ANY_GO: Final = tuple(
    Place(
        file,
        r"//go:build go1\.1\d && !go1\.21(?=\n)",
        "the versions of Go that it takes",
        after=" || go1.21",
    )
    for file in ("goid/goid.go", "sync/runtime_unsafe.go", "gohacks/gohacks_unsafe.go")
)
_BLOCKING_POLL: Final = "tcpip/link/rawfile/blockingpoll_yield_unsafe.go"
_NO_HINT: Final = (
    Place(
        _BLOCKING_POLL,
        r"//go:linkname exitsyscall runtime\.exitsyscall\n",
        "the runtime's functions",
        before="//go:linkname entersyscall runtime.entersyscall\nfunc entersyscall()\n\n",
    ),
    Place(
        _BLOCKING_POLL,
        r"(?<=func callEntersyscallblock\(\) \{\n)\tentersyscallblock\(\)",
        "where P is given away",
        before="\tentersyscall()\n\treturn\n",
    ),
)
_NO_SUPPRESSION: Final = """package sync

const supportsWakeSuppression = false

func preGoReadyWakeSuppression()  {}
func postGoReadyWakeSuppression() {}
"""


def build_etcd(version: str, target: Path) -> None:
    """Build Debian's etcd, unchanged, with the overlay.

    Args:
        version: of Go.
        target: the program.

    Raises:
        PretakeError: Debian's packages cannot be had, or the build fails.
    """
    path = _gopath()
    build(
        toolchains.goroot(version),
        ["-ldflags=-checklinkname=0", "-o", str(target), "go.etcd.io/etcd"],
        folder=path / "src",
        environment=_environment(version, path),
    )


def build_gvisor(version: str, target: Path, *, hint: bool) -> None:
    """Build the round trips through gVisor's network stack (``gvisor/main.go``).

    Args:
        version: of Go.
        target: the program.
        hint: gVisor gives its P away before it polls, as it is written.

    Raises:
        PretakeError: Debian's packages cannot be had, the sources are others than they were, or
            the build fails.
    """
    path, goroot = _gopath(), toolchains.goroot(version)
    own = default_folder(goroot)
    replace = json.loads(make_overlay(goroot, own).read_text())["Replace"]
    folder = own / ("gvisor-hint" if hint else "gvisor")
    replace |= _changes(path / "src" / _GVISOR, folder, () if hint else _NO_HINT)
    overlay = folder / "overlay.json"
    overlay.write_text(json.dumps({"Replace": replace}, indent=1))
    build(
        goroot,
        ["-ldflags=-checklinkname=0", "-o", str(target), str(_PROGRAM)],
        folder=path / "src",
        environment=_environment(version, path),
        overlay=overlay,
    )


def _changes(source: Path, folder: Path, more: tuple[Place, ...]) -> dict[str, str]:
    """Write gVisor's changed files; which of its files each of them replaces."""
    replace = {}
    texts = {"sync/runtime_any.go": _NO_SUPPRESSION}
    for place in (*_ANY_GO, *more):
        text = texts.get(place.file) or (source / place.file).read_text()
        texts[place.file] = inserted(text, place, "Debian's gVisor")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        changed = folder / name.replace("/", "-")
        changed.write_text(text)
        replace[str(source / name)] = str(changed)
    return replace


def _environment(version: str, path: Path) -> Mapping[str, str]:
    return toolchains.environment(version) | {
        "CGO_ENABLED": "0",
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOPATH": str(path),
    }


def _gopath() -> Path:
    """Debian's Go sources, unpacked once."""
    root = toolchains.cache_folder().parent / "retake" / f"debian-{_SUITE}"
    with toolchains.made_once(root) as aside:
        if aside is not None:
            try:
                unpack_packages(_SUITE, "amd64", _PACKAGES, aside)
            except (OSError, subprocess.CalledProcessError, StopIteration) as error:
                raise PretakeError(
                    f"Debian's Go packages cannot be had ({error})",
                    "see that apt-get update works",
                ) from error
    return root / "usr/share/gocode"
