"""Where benchmarks leave their figures: ``bench/results/NAME.json``, with the machine's."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """What a figure of this machine stands on; the load is that of the last minute."""
    return {"kernel": platform.release(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}


def write(name: str, figures: dict[str, Any]) -> Path:
    """Write the figures of one benchmark, and what machine they are of."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
    return path


def put_between(page: Path, marks: tuple[str, str], text: str) -> None:
    """Write a page again with ``text`` between its two marks, which stay."""
    before, _, rest = page.read_text(encoding="utf-8").partition(marks[0])
    _, _, after = rest.partition(marks[1])
    page.write_text(f"{before}{marks[0]}\n\n{text}\n\n{marks[1]}{after}", encoding="utf-8")
