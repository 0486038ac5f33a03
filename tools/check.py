"""``make check FILES="…"``: runs the tests that reach a file, by who imports whom.

A test file reaches a module that it imports, that its fixtures import, or that any of these
imports. Tests on a kernel, with a browser or of Go programs are left out, since they take
minutes; ``make test`` has them. What is imported late (inside of a function) counts, too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pretake", "analysis", "reference_runtime", "tracer")
SLOW = ("tests.kernel", "tests.go", "tests.browser", "tests.wheel")


def module_of(file: str) -> str:
    """``analysis/ptime/harm.py`` as ``analysis.ptime.harm``.

    Raises:
        SystemExit: it is no Python file of the project.
    """
    try:
        path = Path(file).resolve().relative_to(ROOT)
    except ValueError:
        raise SystemExit(f"{file} is not in {ROOT}") from None
    if path.suffix != ".py":
        raise SystemExit(f"{file} is no Python file; 'make test' runs everything")
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def reaching_tests(modules: set[str]) -> list[str]:
    """The test files that reach any of these modules, or are one of them."""
    graph = grimp.build_graph(*PACKAGES, "tests", cache_dir=None)
    # The command line imports its commands by their names.
    for command in graph.find_children("pretake.commands"):
        graph.add_import(importer="pretake.cli", imported=command)
    reaching = {m for m in modules if m in graph.modules}
    for module in sorted(reaching):
        reaching |= graph.find_downstream_modules(module)
    return sorted(
        f"{module.replace('.', '/')}.py"
        for module in reaching
        if module.rpartition(".")[2].startswith("test_") and not module.startswith(SLOW)
    )


def main() -> int:
    """Run them; exit status as pytest's, 1 where no test reaches a file."""
    if len(sys.argv) < 2:
        raise SystemExit('make check FILES="analysis/units.py …"')
    tests = reaching_tests({module_of(file) for file in sys.argv[1:]})
    if not tests:
        print("no test reaches it but those of make test", file=sys.stderr)
        return 1
    command = [sys.executable, "-m", "pytest", "-q", "-x", *tests]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
