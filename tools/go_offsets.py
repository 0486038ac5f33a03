"""Make ``tracer/targets/go_offsets.json`` from real Go toolchains.

    python tools/go_offsets.py /usr/lib/go-1.19 CACHE/go-1.21.13/go ...

Each argument is a GOROOT. A small program is built with each, its DWARF is read as that of any
binary would be, and the offsets become the row of its version. Rows of other versions stay.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tracer.targets.buildinfo import go_version
from tracer.targets.elf import Elf
from tracer.targets.go import GO_FIELDS, measure_offsets
from tracer.targets.go_offsets import version_of

TABLE = Path(__file__).parent.parent / "tracer" / "targets" / "go_offsets.json"
PROGRAM = "package main\n\nfunc main() {}\n"


def measure(goroot: Path) -> tuple[str, dict[str, int]]:
    """Build a program with a toolchain and read its version and offsets."""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "main.go", Path(folder) / "main"
        source.write_text(PROGRAM)
        environment = os.environ | {
            "GOROOT": str(goroot),
            "GOTOOLCHAIN": "local",
            "GO111MODULE": "off",
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
    rows = json.loads(TABLE.read_text())["versions"] if TABLE.exists() else {}
    for goroot in goroots:
        version, offsets = measure(Path(goroot))
        rows[version] = offsets
        print(version)
    ages = {version: told for version in rows if (told := version_of(version))}
    ordered = {version: rows[version] for version in sorted(ages, key=lambda v: (ages[v], v))}
    TABLE.write_text(json.dumps({"versions": ordered}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
