"""Builds ``looked``: a program whose package runtime has one more file, which tells its state."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from tests.go.toolchains import cache_folder, environment, goroot, made_once, minor

__all__ = ["LOOK_COLUMNS", "build_looked"]

LOOK_COLUMNS = ("p", "m", "goid", "tid", "runq", "npidle", "nmspinning", "global_runq")
"""What ``runtime.Look`` fills in, in this order."""

_HERE = Path(__file__).parent
_LOOK = """package runtime

import (
{imports}
)

// Look tells of the goroutine that calls it.
func Look(seen *[8]int64) {{
	gp := getg()
	pp := gp.m.p.ptr()
	waiting := int64(pp.runqtail - pp.runqhead)
	if pp.runnext != 0 {{
		waiting++
	}}
	*seen = [8]int64{{
		int64(pp.id), int64(gp.m.id), int64(gp.goid), int64(gp.m.procid), waiting,
		int64(*(*int32)(unsafe.Pointer(&sched.npidle))),
		int64(*(*int32)(unsafe.Pointer(&sched.nmspinning))), int64({runqsize}),
	}}
}}

// Pretend adds to the number of Ms that look for work.
func Pretend(more int32) {{
	{add}
}}
"""


def _look(version: str) -> str:
    """The file, for the names that a version has."""
    old = minor(version) < 20
    return _LOOK.format(
        imports='\t"runtime/internal/atomic"\n\t"unsafe"' if old else '\t"unsafe"',
        runqsize="sched.runqsize" if minor(version) < 25 else "sched.runq.size",
        add="atomic.Xadd(&sched.nmspinning, more)" if old else "sched.nmspinning.Add(more)",
    )


def build_looked(version: str) -> Path:
    """The program, from the cache where its source has not changed.

    Raises:
        LookupError: the toolchain cannot be had.
    """
    root, text = goroot(version), _look(version)
    sources = [_HERE / "looked" / "main.go", _HERE / "timer" / "timer.go", _HERE / "go.mod"]
    digest = hashlib.sha256(text.encode() + b"".join(s.read_bytes() for s in sources))
    folder = cache_folder() / "programs" / f"looked-{version}-{digest.hexdigest()[:12]}"
    with made_once(folder) as aside:
        if aside is not None:
            for name in ("looked", "timer"):
                shutil.copytree(_HERE / name, aside / name)
            shutil.copy(_HERE / "go.mod", aside)
            (aside / "look.go").write_text(text)
            _compile(aside, version, root)
    return folder / "looked" / "looked"


def _compile(aside: Path, version: str, root: Path) -> None:
    place = root / "src" / "runtime" / "pretake_look.go"
    (aside / "overlay.json").write_text(
        json.dumps({"Replace": {str(place): str(aside / "look.go")}})
    )
    build = [str(root / "bin" / "go"), "build", "-buildvcs=false", "-trimpath"]
    subprocess.run(
        [*build, f"-overlay={aside / 'overlay.json'}", "-o", "looked", "."],
        check=True,
        env=environment(version) | {"CGO_ENABLED": "0"},
        cwd=aside / "looked",
    )
