"""``make check FILES="…"``: runs the tests that are nearest to a file, by who imports whom.

A test file reaches a module that it imports, that its fixtures import, or that any of these
imports. The nearest are those with the shortest way, mostly those that import the file itself:
they take seconds. All that reach it may be half of the suite: ``make check FILES="…" ALL=1``.
Tests on a kernel, with a browser or of Go programs are left out, since they take minutes;
``make test`` has them. What is imported late (inside of a function) counts, too.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pretake", "analysis", "reference_runtime", "tracer")
SLOW = ("tests.kernel", "tests.go", "tests.browser", "tests.wheel")
MINUTES = "tests/unit/command/test_every_command.py"
"""It runs each command in each form: it is near only to what no other test reaches."""


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


@functools.cache
def _graph() -> grimp.ImportGraph:
    """Who imports whom."""
    graph = grimp.build_graph(*PACKAGES, "tests", cache_dir=None)
    # The command line imports its commands by their names.
    for command in graph.find_children("pretake.commands"):
        graph.add_import(importer="pretake.cli", imported=command)
    return graph


def reaching_tests(modules: set[str]) -> dict[str, int]:
    """The test files that reach any of these modules, or are one of them.

    Returns:
        How many imports lie between the file and the nearest of the modules, by the file's path.
    """
    graph = _graph()
    away = dict.fromkeys(sorted(modules & graph.modules), 0)
    found = list(away)
    for module in found:
        for importer in sorted(graph.find_modules_that_directly_import(module)):
            if importer not in away:
                away[importer] = away[module] + 1
                found.append(importer)
    return {
        f"{module.replace('.', '/')}.py": away[module]
        for module in found
        if module.rpartition(".")[2].startswith("test_") and not module.startswith(SLOW)
    }


def nearest_tests(modules: set[str]) -> list[str]:
    """Of each module the test files that are nearest to it."""
    nearest: set[str] = set()
    for module in modules:
        away = reaching_tests({module})
        if len(away) > 1:
            away.pop(MINUTES, None)
        least = min(away.values(), default=0)
        nearest |= {test for test, steps in away.items() if steps == least}
    return sorted(nearest)


def main() -> int:
    """Run them; exit status as pytest's, 1 where no test reaches a file."""
    files = [argument for argument in sys.argv[1:] if argument != "--all"]
    if not files:
        raise SystemExit('make check FILES="analysis/units.py …"')
    modules = {module_of(file) for file in files}
    reaching = list(reaching_tests(modules))
    if not reaching:
        print("no test reaches it but those of make test", file=sys.stderr)
        return 1
    tests = reaching if "--all" in sys.argv else nearest_tests(modules)
    command = [sys.executable, "-m", "pytest", "-q", "-x", *tests]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if further := len(set(reaching) - set(tests)):
        print(f"{further} more test files reach it from further away: add ALL=1")
    return status


if __name__ == "__main__":
    sys.exit(main())
