"""``make test-pythons``: the runtime's and the analysis' tests by each Python that pretake is for.

``make test`` has one of them; here are all others that are found (tools/pythons.py), each compiled
in a copy of the project in ``build/``. ``PRETAKE_NO_COMPILE=1`` leaves them interpreted, but for
the C modules.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.copies import ROOT, compile_in, refresh
from tools.ends import ended
from tools.pythons import VERSIONS, pythons
from tools.wheels import builder, native_environment
from tracer.errors import PretakeError

_TESTS: Final = ("tests/unit/runtime", "tests/unit/analysis")
_HOW: Final = ("-q", "-n", "4", "--dist", "loadfile")
_TESTED_WITH: Final = (
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "hypothesis",
    "pyelftools",
    "moto[s3]",
    "flask-cors",
)


def _prepare(version: str, program: Path) -> tuple[Path, Path]:
    """The Python with what the tests need, and the copy to run it in."""
    home = ROOT / "build" / "pythons" / version
    home.mkdir(parents=True, exist_ok=True)
    copy = home / "clone"
    refresh(copy)
    venv, env = home / "venv", native_environment(program)
    python = venv / "bin" / "python"
    if not (venv / "complete").exists():
        print(f"installing for Python {version}", flush=True)
        builder(program, venv)
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
        install = ["install", "-c", str(ROOT / "constraints.txt"), "--no-build-isolation"]
        what = ["--config-settings", "editable_mode=compat", "-e", f"{copy}[s3]", *_TESTED_WITH]
        subprocess.run(
            [*pip, "--python", python, *install, *what],
            env={**os.environ, "PRETAKE_NO_COMPILE": "1", **env},
            check=True,
        )
        (venv / "complete").touch()
    print(f"compiling for Python {version}", flush=True)
    compile_in(copy, [python], env, home / "compile.log")
    return python, copy


def main() -> int:
    """Test by the Pythons that are named, as ``3.12``, or all others than this one."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = pythons()
    wanted = sys.argv[1:] or [version for version in VERSIONS if version != own]
    results: dict[str, int] = {}
    try:
        for version in wanted:
            if version not in found:
                raise PretakeError(f"no Python {version} is here")
            python, copy = _prepare(version, found[version])
            told = subprocess.run([python, "-m", "pytest", *_HOW, *_TESTS], cwd=copy, check=False)
            results[version] = told.returncode
    except (PretakeError, subprocess.CalledProcessError) as error:
        return ended("test_pythons", error, "build/pythons/*/compile.log")
    for version, status in results.items():
        print(f"Python {version}: {'passed' if status == 0 else 'failed'}")
    return max(results.values(), default=0)


if __name__ == "__main__":
    sys.exit(main())
