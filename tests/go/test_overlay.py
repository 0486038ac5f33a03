"""A program on a file system of which stat(2) tells another device than the kernel has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.forced import KERNEL, lacking
from tests.go import toolchains
from tracer.trace.reader import Trace

NR_NANOSLEEP = 35
CALLS = 23
FILE_SYSTEMS = Path("/proc/filesystems")
# The device of a file in an overlay of several file systems is a layer's own; so is, on btrfs, a
# subvolume's.
MOUNTS = """
mount -t tmpfs none lower && mount -t tmpfs none upper && mkdir upper/data upper/work &&
cp "$1" lower/program &&
mount -t overlay -o lowerdir=lower,upperdir=upper/data,workdir=upper/work none merged &&
stat -c %d merged/program &&
awk '$5 == "'$PWD'/merged" {print $3}' /proc/self/mountinfo && shift && exec "$@"
"""


def test_a_program_in_an_overlay_is_in_reach_from_its_exec_on(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or "\toverlay\n" not in FILE_SYSTEMS.read_text():
        lacking("there is no unshare, or no overlay", KERNEL)
    for name in ("lower", "upper", "merged"):
        (tmp_path / name).mkdir()
    pretake = [sys.executable, "-m", "pretake", "record", "-q", "-o", str(tmp_path / "t")]
    command = [*pretake, "--", str(tmp_path / "merged/program")]
    program = str(toolchains.build("sleeps", linkage="stripped"))
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNTS, "sh"]
    told = subprocess.check_output(
        [*apart, program, *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
    ).split()
    stat_device, device, calls = told
    major, _, minor = device.partition(":")
    assert int(stat_device) != os.makedev(int(major), int(minor))
    trace = Trace(tmp_path / "t")
    (reach,) = trace.frame("reach").to_dict("records")
    assert reach["ts_ns"] == reach["exec_ns"] > 0
    block = trace.frame("block")
    of_main = block[(block["nr"] == NR_NANOSLEEP) & (block["goid"] == 1)]
    # One that a signal ended early may not have blocked, and is made again. A thread that is kept
    # off its CPU before it blocks may have lost its P by then.
    assert CALLS <= len(of_main) <= int(calls)
    assert set(of_main["p_use"]) <= {"syscall", "handed_off"}
    held = of_main[of_main["p_use"] == "syscall"]
    assert len(held) > CALLS / 2
    assert set(held["p"]) == {0}
