"""Make ``tracer/targets/go_offsets.json`` from real Go toolchains.

    python tools/go_offsets.py /usr/lib/go-1.19 CACHE/go-1.21.13/go ...

Each argument is a GOROOT. A small program is built with each, for each architecture, its DWARF is
read as that of any binary would be, and the offsets become the row of its version there. Rows of
other versions stay.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tracer.arch import ARCHITECTURES
from tracer.targets.buildinfo import go_version
from tracer.targets.elf import Elf
from tracer.targets.go import GO_FIELDS, measure_offsets
from tracer.targets.go_offsets import version_of

TABLE = Path(__file__).parent.parent / "tracer" / "targets" / "go_offsets.json"
PROGRAM = "package main\n\nfunc main() {}\n"


def measure(goroot: Path, goarch: str) -> tuple[str, dict[str, int]]:
    """Build a program with a toolchain for an architecture and read its version and offsets."""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "main.go", Path(folder) / "main"
        source.write_text(PROGRAM)
        environment = os.environ | {
            "GOROOT": str(goroot),
            "GOTOOLCHAIN": "local",
            "GO111MODULE": "off",
            "GOARCH": goarch,
            "CGO_ENABLED": "0",
            "GOFLAGS": "",
            "GOCACHE": os.environ.get("GOCACHE", str(Path(folder) / "cache")),
        }
        subprocess.run(
            [goroot / "bin" / "go", "build", "-o", binary, source], check=True, env=environment
        )
        with Elf(binary) as elf:
            version, offsets = go_version(elf), measure_offsets(elf)
    if version is None or not version_of(version) or len(offsets) != len(GO_FIELDS):
        sys.exit(f"{goroot}: {version} lacks {sorted(set(GO_FIELDS) - set(offsets))}")
    return version, offsets


def main(goroots: list[str]) -> None:
    """Add or replace the row of each toolchain."""
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    for goroot in goroots:
        for goarch in (arch.goarch for arch in ARCHITECTURES):
            version, offsets = measure(Path(goroot), goarch)
            table.setdefault(goarch, {})[version] = offsets
            print(version, goarch)
    ordered = {goarch: _by_age(rows) for goarch, rows in table.items()}
    TABLE.write_text(json.dumps(ordered, indent=1) + "\n")


def _by_age(rows: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    ages = {version: told for version in rows if (told := version_of(version))}
    return {version: rows[version] for version in sorted(ages, key=lambda v: (ages[v], v))}


if __name__ == "__main__":
    main(sys.argv[1:])
