"""The runtime as a bundle of names: the built one, or an interpreted copy with a bug put in.

A compiled class can be neither patched nor (without paying for it) subclassed. So a mutant is the
package's own source with one piece of text replaced, loaded under another name. A piece that is
not there exactly once is an error: a mutant cannot quietly become none.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import reference_runtime

FOLDER = Path(reference_runtime.__file__).parent
COPY = "mutant_runtime"


@dataclass(frozen=True)
class Mutant:
    """One bug: in ``file`` (under reference_runtime/), ``text`` becomes ``bug``.

    It shows under one of ``policies``; those here are the ones whose Ps change hands most. And by
    the rules of one of ``likes``.
    """

    name: str
    file: str
    text: str
    bug: str
    policies: tuple[str, ...] = ("sysmon", "block")
    likes: tuple[str, ...] = ("lean",)

    def __str__(self) -> str:
        return self.name


class Package:
    """The names that the tests use, from one loaded copy of the package."""

    def __init__(self, name: str) -> None:
        def module(rest: str) -> ModuleType:
            return importlib.import_module(f"{name}.{rest}")

        self.goroutines = module("goroutines")
        self.channels = module("channels")
        self.sync = module("sync")
        self.stopping = module("stopping")
        self.deadlock = module("deadlock")
        self.policies = module("policies")
        self.runtime = module("runtime")
        self.sim_host = module("sim.sim_host")
        self.errors = module("sim.errors")
        self.costs = module("sim.costs")
        self.invariants = module("sim.invariants")


class _Sources(importlib.abc.Loader):
    """Finds ``mutant_runtime.x`` in the source of ``reference_runtime.x``."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if fullname != COPY and not fullname.startswith(COPY + "."):
            return None
        place = FOLDER.joinpath(*fullname.split(".")[1:])
        is_package = place.is_dir()
        source = place / "__init__.py" if is_package else place.with_suffix(".py")
        if not source.exists():
            return None
        return importlib.machinery.ModuleSpec(
            fullname, self, origin=str(source), is_package=is_package
        )

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        source = Path(str(module.__spec__.origin))
        text = source.read_text()
        if source == FOLDER / self.mutant.file:
            found = text.count(self.mutant.text)
            assert found == 1, f"{self.mutant.name}: its text is there {found} times"
            text = text.replace(self.mutant.text, self.mutant.bug)
        module.__file__ = str(source)
        text = re.sub(r"\breference_runtime\b", COPY, text)
        exec(compile(text, str(source), "exec"), module.__dict__)


NO_MUTANT = Mutant("none", "", "", "")


@contextmanager
def load(mutant: Mutant) -> Iterator[Package]:
    """An interpreted copy of the package with ``mutant``'s bug, for the time of the block."""
    finder = _Sources(mutant)
    sys.meta_path.insert(0, finder)
    try:
        yield Package(COPY)
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n == COPY or n.startswith(COPY + ".")]:
            del sys.modules[name]
