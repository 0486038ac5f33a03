"""Makes the overlay that builds the retake by perf events into a toolchain's runtime.

``python -m bench.go.retake.overlay --goroot DIR`` prints the path of a file for
``go build -overlay``. It copies two files of that toolchain's package runtime, inserts a few
calls at places that it finds by their content, and adds the files of ``runtime/`` beside this
one. A toolchain in which a place is not found exactly once is refused: nothing of Go's own text is
kept here, so nothing here can tell what else has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tracer.errors import PretakeError

__all__ = ["Place", "inserted", "main", "make_overlay"]

OWN = Path(__file__).parent / "runtime"
FIRST_PRUNNING = 26
"""From Go 1.26 on a P in a system call stays _Prunning."""

_SYSTEM = """// Made by overlay.py: what differs between toolchains in reaching the kernel.
package runtime

import linux "{package}"

const (
\tretakeSysEpollPwait   = linux.SYS_EPOLL_PWAIT
\tretakeSysEpollCtl     = linux.SYS_EPOLL_CTL
\tretakeSysEpollCreate1 = linux.SYS_EPOLL_CREATE1
\tretakeSysPerfEventOpen = {perf_event_open}
\tretakeSysPrctl        = {prctl}
\tretakeEpollIn         = 1
\tretakeEpollEdge       = 1 << 31
\tretakeEpollAdd        = 1
\tretakeCloexec         = 0x80000
\t_MAP_SHARED           = 1
)

//go:nowritebarrierrec
func retakeSyscall6(nr, a, b, c, d, e, f uintptr) (uintptr, uintptr, uintptr) {{
\treturn linux.Syscall6(nr, a, b, c, d, e, f)
}}
"""


@dataclass(frozen=True)
class Place:
    """One place in a file of package runtime.

    Args:
        file: its name.
        anchor: a pattern that the file has exactly once; its group ``at``, or the whole match, is
            what is added to.
        before: what to put in front of it.
        after: what to put behind it.
        why: for the message when it is not found.
    """

    file: str
    anchor: str
    why: str
    before: str = ""
    after: str = ""


PLACES = (
    Place(
        "os_linux.go",
        r"type mOS struct \{",
        "an M's slot",
        after="\n\tretakeSlot int32\n\tretakeRing uintptr",
    ),
    Place(
        "os_linux.go",
        r"func minit\(\) \{(?s:.*?)procid = uint64\(gettid\(\)\)",
        "an M begins",
        after="\n\tretakeMinit()",
    ),
    Place("os_linux.go", r"func unminit\(\) \{", "an M ends", after="\n\tretakeUnminit()"),
    Place(
        "proc.go",
        r"newm\(sysmon, nil, -1\)",
        "where sysmon is started",
        after="\n\t\t\tretakeStart()",
    ),
    Place("proc.go", r"\nfunc sysmon\(\) \{", "sysmon", after="\n\tretakeUnminit()"),
    Place(
        "proc.go",
        r"\nfunc stopm\(\) \{(?:[^\n]*\n(?!\}))*(?P<at>\tlock\(&sched\.lock\)\n\tmput\(gp\.m\))",
        "an M parks",
        before="\tif retakeStand(gp.m) {\n\t\tacquirep(gp.m.nextp.ptr())\n"
        "\t\tgp.m.nextp = 0\n\t\treturn\n\t}\n",
    ),
    Place(
        "proc.go",
        r"\n\t\tusleep\(delay\)",
        "sysmon's sleep",
        before="\n\t\tretakeOwn := delay\n\t\tdelay = retakeDelay(delay)",
        after="\n\t\tdelay = retakeOwn",
    ),
    Place(
        "proc.go",
        r"!sysretake && int64\(pd\.syscalltick\) != \w+",
        "retake's second sighting",
        after=" && !retakeBlocked(pp)",
    ),
    Place(
        "proc.go",
        r"\nfunc reentersyscall\((?:[^\n]*\n(?!\}))*(?P<at>\tgp\.m\.locks--)\n\}",
        "the end of entersyscall",
        after="\n\tretakeArm(gp.m)",
    ),
    Place(
        "proc.go",
        r"\nfunc exitsyscall\(\) \{\n\tgp := getg\(\)\n\n(?P<at>\tgp\.m\.locks\+\+[^\n]*)",
        "the begin of exitsyscall",
        after="\n\tretakeDisarm(gp.m)",
    ),
)
"""All that is changed of Go's own files."""

_NUMBERS = {
    "amd64": {"perf_event_open": 298, "prctl": 157},
    "arm64": {"perf_event_open": 241, "prctl": 167},
}


def version_of(goroot: Path) -> tuple[int, str]:
    """A toolchain's minor version (27 of go1.27.3), and its whole version."""
    try:
        text = (goroot / "VERSION").read_text().split()[0]
        return int(re.match(r"go1\.(\d+)", text)[1]), text  # type: ignore[index]
    except (OSError, TypeError, IndexError) as error:
        raise PretakeError(
            f"{goroot} is no Go toolchain", "give the folder that 'go env GOROOT' prints"
        ) from error


def make_overlay(goroot: Path, folder: Path, arch: str = "amd64") -> Path:
    """Write the overlay of one toolchain.

    Args:
        goroot: the toolchain.
        folder: where the changed copies and the overlay's own file go; made if it is not there.
        arch: GOARCH of what is to be built.

    Returns:
        The file for ``go build -overlay``.

    Raises:
        PretakeError: this is no toolchain, or not one whose runtime has every place once.
    """
    minor, version = version_of(goroot)
    source = goroot / "src" / "runtime"
    folder.mkdir(parents=True, exist_ok=True)
    replace: dict[str, str] = {}
    for name in sorted({place.file for place in PLACES}):
        text = (source / name).read_text()
        for place in PLACES:
            if place.file == name:
                text = inserted(text, place, version)
        target = folder / name
        target.write_text(text)
        replace[str(source / name)] = str(target)
    model = "prunning" if minor >= FIRST_PRUNNING else "psyscall"
    for name in ("retake.go", "stand.go", f"{model}.go"):
        replace[str(source / f"retake_{name}")] = str((OWN / name).resolve())
    package = "internal/runtime/syscall"
    if (goroot / "src" / package / "linux").is_dir():
        package += "/linux"
    system = folder / "system.go"
    system.write_text(_SYSTEM.format(package=package, **_NUMBERS[arch]))
    replace[str(source / "retake_system.go")] = str(system)
    overlay = folder / "overlay.json"
    overlay.write_text(json.dumps({"Replace": replace}, indent=1))
    return overlay


def inserted(text: str, place: Place, version: str) -> str:
    """A file's text with what a place gets.

    Args:
        text: of the file that the place names.
        place: what to add, and where.
        version: whose file this is, for the message.

    Raises:
        PretakeError: the place is not there exactly once.
    """
    found = list(re.finditer(place.anchor, text))
    if len(found) != 1:
        raise PretakeError(
            f"{version}: {place.file} has the place for '{place.why}' {len(found)} times, "
            "not once",
            "use a version that the page names, or teach bench/go/retake this one",
        )
    group = "at" if "at" in found[0].groupdict() else 0
    begin, end = found[0].span(group)
    return text[:begin] + place.before + text[begin:end] + place.after + text[end:]


def default_folder(goroot: Path) -> Path:
    """Where a toolchain's overlay is kept: a folder for each toolchain and state of our files."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    ours = b"".join(path.read_bytes() for path in (*sorted(OWN.iterdir()), Path(__file__)))
    digest = hashlib.sha256(str(goroot).encode() + ours).hexdigest()[:12]
    return Path(base) / "pretake" / "retake" / digest


def main(argv: Sequence[str] | None = None) -> int:
    """Print the overlay's path; 2 where there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--goroot", type=Path, required=True, help="what 'go env GOROOT' prints")
    parser.add_argument("--goarch", default="amd64", choices=sorted(_NUMBERS))
    parser.add_argument("-o", "--output", type=Path, help="folder to write to [default: a cache]")
    asked = parser.parse_args(argv)
    try:
        goroot = asked.goroot.resolve()
        print(make_overlay(goroot, asked.output or default_folder(goroot), asked.goarch))
    except PretakeError as error:
        print(f"overlay: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
