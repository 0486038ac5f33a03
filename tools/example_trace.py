"""``make trace``: a small ready trace to try a view on, without root and in a second.

It is the shelf's busy server (``tests/unit/command/shelf.py``): two goroutines that read in turn
on one P, which sysmon retakes each time.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.unit.command.shelf import busy_server

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build"
NAME = "example.pretake"


def main() -> None:
    """Write it, and tell what to type next."""
    FOLDER.mkdir(exist_ok=True)
    shutil.rmtree(FOLDER / NAME, ignore_errors=True)
    path = busy_server(400).write(FOLDER, NAME).path.relative_to(ROOT)
    print(f"{path} is written; try: .venv/bin/pretake summary {path}")


if __name__ == "__main__":
    main()
