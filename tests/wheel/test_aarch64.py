"""The wheel for aarch64, in an emulated machine of Debian's packages and without a compiler.

The runtime is compiled there, so that a capture counts its retakes by uprobes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.forced import lacking
from tests.kernels.foreign import foreign_root
from tests.kernels.images import KERNELS, fetch
from tests.kernels.vm import run
from tests.wheel.installed import ROOT
from tests.wheel.test_pythons import FOREIGN, READS, wheel_for
from tools.cross import PYTHON, compile_environment

_FORCE: Final = "PRETAKE_FORCE_AARCH64"
_PLACE: Final = "/tmp/place"
# Each line of what it prints is one answer. A file on the host's share cannot be held still, which
# a capture asks for before it puts a probe into it.
_COMMAND: Final = f"""
cp -r /out/inputs {_PLACE}
cd /tmp
export PYTHONPATH={_PLACE} PRETAKE_BYTE_CODE=shipped
set -e
python3 -m pretake --version
python3 -m pretake record -q -o prime -- python3 -m pretake run prime --json >told
tr -d '\\n' <told; echo
python3 -m pretake summary --json prime >summary
tr -d '\\n' <summary; echo
python3 -m pretake check prime >&2
"""


@pytest.mark.timeout(2400)
def test_a_capture_counts_the_retakes_of_the_compiled_runtime(
    compiled: list[Path], tmp_path: Path
) -> None:
    wheel = wheel_for(compiled, PYTHON, FOREIGN)
    if shutil.which("qemu-system-aarch64") is None:
        lacking("qemu-system-aarch64 is not installed (tools/setup.sh packages qemu)", _FORCE)
    kernel = next(k for k in KERNELS if k.arch == "arm64" and not k.flavour)
    place = tmp_path / "place"
    for file in (wheel, counting_wheel(tmp_path / "counting")):
        with zipfile.ZipFile(file) as members:
            members.extractall(place)
    outcome = run(fetch(kernel), _COMMAND, root=foreign_root("arm64"), inputs=place, quiet_s=1200)
    assert outcome.status == 0, f"{outcome.stderr[-2000:]}{outcome.console[-2000:]}"
    version, told, summary = outcome.stdout.splitlines()
    assert version.endswith("reference runtime compiled")
    counted = json.loads(told)
    assert counted["compiled"]
    assert json.loads(summary)["retakes"]["sysmon"] == counted["runtime"]["retakes"] >= READS


def counting_wheel(into: Path) -> Path:
    """What the runtime's workloads count with, which has no wheel for aarch64."""
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps"]
    options = [
        "--no-binary=hdrhistogram",
        "--no-build-isolation",
        "--no-cache-dir",
        "-w",
        str(into),
    ]
    subprocess.run(
        [*pip, *options, "-c", str(ROOT / "constraints.txt"), "hdrhistogram"],
        env=os.environ | compile_environment(FOREIGN),
        check=True,
    )
    [wheel] = into.iterdir()
    return wheel
