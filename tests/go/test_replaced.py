"""A binary that is replaced while a capture has probes in it: no program is hurt.

``make test-unharmed`` does it 25 times in each way, 100 times for each version.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.go import toolchains
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record
from tracer.trace.reader import Trace

ROUNDS = int(os.environ.get("PRETAKE_ROUNDS", "2"))
VERSIONS = ("1.19.8", "1.24.11", "1.26.6", "1.27.3")
READS = "15"
WAYS = {
    # As deployments do it; {new} to {old}. Who writes into a file that somebody still runs is told
    # "text file busy" and has to come again: whoever reads /proc/PID/maps of it, as the tracer or
    # ps do, lets it run for that moment longer.
    "overwritten": "until cp {new} {old} 2>/dev/null; do true; done",
    "truncated": "until (true > {old}) 2>/dev/null; do true; done; cp {new} {old}",
    "deleted": "rm {old} && cp {new} {old}",
    "renamed": "cp {new} {old}.new && mv {old}.new {old}",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_next_program_lives(version: str, way: str, tmp_path: Path) -> None:
    others = [other for other in VERSIONS if other != version]
    first, second = (toolchains.build("blockread", v) for v in (version, others[0]))
    server, said = tmp_path / "server", tmp_path / "said"
    lines = [f"cp {first} {server}"]
    for _ in range(ROUNDS):
        for binary in (second, first):
            run = f"{server} {READS} > /dev/null; echo $? >> {said}"
            lines.append(f"{run}; {WAYS[way].format(new=binary, old=server)} || echo no >> {said}")
    script = "\n".join([*lines, f"{server} {READS} > /dev/null; echo $? >> {said}"])
    record(["sh", "-c", script], output=tmp_path / "t", options=CaptureOptions(probes="exact"))
    assert said.read_text().split() == ["0"] * (2 * ROUNDS + 1)
    assert subprocess.run([server, READS], stdout=subprocess.DEVNULL).returncode == 0
    # Each of them is told as what it was, or as unknown where it ended before it was looked at.
    trace = Trace(tmp_path / "t")
    programs = trace.frame("reach").query("comm == 'server'").sort_values("exec_ns")
    wanted = ([f"go{version}", f"go{others[0]}"] * (ROUNDS + 1))[: 2 * ROUNDS + 1]
    assert len(programs) == len(wanted)
    told = programs["version"].notna()
    assert list(programs["version"][told]) == list(pd.Series(wanted)[told.to_numpy()])
    assert told.all() or "before they were looked at" in str(trace.manifest.missing)


def overwrite(old: Path, new: Path) -> None:
    """As in ``WAYS``: whoever still reads /proc/PID/maps of what ran last lets it run so long."""
    while True:
        try:
            shutil.copyfile(new, old)
        except OSError as error:
            if error.errno != errno.ETXTBSY:
                raise
        else:
            return


def test_a_program_that_is_no_target_lives(tmp_path: Path) -> None:
    first, second = (toolchains.build("blockread", version) for version in ("1.19.8", "1.27.3"))
    server = tmp_path / "server"
    with subprocess.Popen(["sh"], stdin=subprocess.PIPE, text=True) as shell:
        assert shell.stdin is not None
        pretake = [sys.executable, "-m", "pretake", "record", "--probes", "exact"]
        with subprocess.Popen(
            [*pretake, "-q", "-o", tmp_path / "t", "--pid", str(shell.pid)]
        ) as tracer:
            while not (tmp_path / "t" / "manifest.json").exists():
                assert tracer.poll() is None
            done = tmp_path / "done"
            for turn in range(ROUNDS):
                overwrite(server, (first, second)[turn % 2])
                server.chmod(0o755)
                # The target runs it, and ends; then it is replaced, and a stranger runs it.
                shell.stdin.write(f"{server} {READS} > /dev/null; echo $? > {done}.{turn}\n")
                shell.stdin.flush()
                while (
                    not Path(f"{done}.{turn}").exists() or not Path(f"{done}.{turn}").read_text()
                ):
                    assert shell.poll() is None
                assert Path(f"{done}.{turn}").read_text() == "0\n"
                overwrite(server, (second, first)[turn % 2])
                ran = subprocess.run([server, READS], stdout=subprocess.DEVNULL)
                assert ran.returncode == 0
            shell.stdin.close()
            assert tracer.wait() == 0
