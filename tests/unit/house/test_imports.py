"""The house's import rules (`.importlinter`) hold, and would be seen to break."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FLOORS = ("pretake", "analysis", "reference_runtime", "tracer")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"
    return subprocess.run(
        [sys.executable, "-c", command], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the sources, to plant imports in."""
    shutil.copy(ROOT / ".importlinter", tmp_path)
    for floor in FLOORS:
        shutil.copytree(
            ROOT / floor, tmp_path / floor, ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
    return tmp_path


def test_every_import_leads_downward(house: Path) -> None:
    result = lint(house)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("tracer/trace/parts.py", "from tracer.capture import options", "A capture loads"),
        ("tracer/targets/elf.py", "import analysis.units", "The command stands on"),
        ("analysis/ptime/tasks.py", "import analysis.answers.summary", "From reading a trace"),
        ("analysis/windowed/asof.py", "from tracer.kernel import btf", "Who analyses a trace"),
        ("analysis/windowed/asof.py", "import analysis.windowed.windows\n", None),
        ("tracer/trace/schema.py", "from tracer.trace import reader", "No ring of imports"),
        ("reference_runtime/gmp.py", "from tracer.capture import launch", "The scheduler knows"),
    ],
)
def test_an_upward_import_is_seen(house: Path, file: str, line: str, broken: str | None) -> None:
    source = house / file
    source.write_text(f"{source.read_text()}\n{line}\n")
    result = lint(house)
    if broken is None:
        assert result.returncode == 0, result.stdout  # within a room, downward: allowed
        return
    assert result.returncode != 0
    row = next(line for line in result.stdout.splitlines() if line.startswith(broken))
    assert "BROKEN" in row
