"""Which process is looked at is said before anything that takes time."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", [["record", "-o", "x.pretake"], ["live"]])
def test_it_is_said_before_a_library_is_loaded(command: list[str]) -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        # Python stops at the first of the libraries that take a second.
        program = (
            "import sys; from pretake.cli import main; "
            "sys.modules['numpy'] = sys.modules['pyarrow'] = None; "
            f"sys.argv = ['pretake', *{command!r}, '--pid', '{process.pid}']; main()"
        )
        try:
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        finally:
            process.kill()
    assert done.returncode != 0
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"pretake: looking at process {process.pid}, /")
    assert first.endswith("sleep")
