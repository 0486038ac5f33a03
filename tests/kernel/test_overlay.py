"""A reference runtime on a file system of which its processes have mapped the layer below."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.forced import KERNEL, lacking
from tracer.trace.reader import Trace

ROOT = Path(__file__).parents[2]
FILE_SYSTEMS = Path("/proc/filesystems")
MOUNTS = """
mount -t tmpfs none upper && mkdir upper/data upper/work &&
mount -t overlay -o "lowerdir=$1,upperdir=$PWD/upper/data,workdir=$PWD/upper/work" none "$1" &&
cd "$1" && shift && exec "$@"
"""


def test_the_reference_runtime_on_an_overlay_is_in_reach(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or "\toverlay\n" not in FILE_SYSTEMS.read_text():
        lacking("there is no unshare, or no overlay", KERNEL)
    (tmp_path / "upper").mkdir()
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNTS, "sh", str(ROOT)]
    pretake = [sys.executable, "-m", "pretake"]
    capture = [*pretake, "record", "-q", "-o", str(tmp_path / "t"), "--"]
    told = subprocess.check_output(
        [*apart, *capture, *pretake, "run", "prime", "--json"], cwd=tmp_path, text=True
    )
    trace = Trace(tmp_path / "t")
    (reach,) = trace.frame("reach").to_dict("records")
    assert (reach["runtime"], reach["ts_ns"]) == ("reference", reach["exec_ns"])
    # Nothing is told twice, though the file has two names.
    retakes = trace.frame("runtime")["kind"].eq("retake").sum()
    assert retakes == json.loads(told)["runtime"]["retakes"] > 0
