"""Which runtime is in reach of a capture: binaries inspected, their layouts and probes in place.

A Go program is known before it runs, when it is the command itself; one that a shell or another
program execs later is inspected when its exec is told, some milliseconds into its life. A
reference runtime is known by the probe on its first M.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tracer.adapters import RuntimeBinary, reference, runtime_of, runtimes_of_process
from tracer.errors import PretakeError
from tracer.manifest import Missing, Target
from tracer.options import CaptureOptions
from tracer.program import Program
from tracer.schema import TABLES
from tracer.symbols import Symbols

__all__ = ["Runtimes"]

_EXEC = TABLES["task"].column("kind").code("exec")


class Runtimes:
    """Finds runtimes and tells the BPF programs where they keep their state.

    Args:
        program: gets layouts and probes.
        options: says which runtimes are wanted.
        symbols: is told of each binary.

    Attributes:
        target: of the manifest; the first runtime found decides it.
        attached: names of the probed functions.
        missing: what could not be had.
    """

    def __init__(self, program: Program, options: CaptureOptions, symbols: Symbols) -> None:
        self.target = Target()
        self.attached: list[str] = []
        self.missing: list[Missing] = []
        self._program = program
        self._symbols = symbols
        self._wanted = options.runtime
        self._seen: set[tuple[int, int]] = set()
        self._probed: set[tuple[str, int, int]] = set()
        self._library: RuntimeBinary | None = None
        module = options.reference_module or reference.find()
        if module is not None and self._wants("reference"):
            self._expect_reference(module)

    def expect(self, path: Path) -> bool:
        """Look at a program before it runs.

        Returns:
            Whether it has a runtime that was not known before: a binary that was seen is not
            read again, since every process that execs it is in reach by itself.
        """
        if not self._is_new(path):
            return False
        with self._telling_missing(path):
            binary = runtime_of(path)
            if binary is not None and self._wants(binary.runtime):
                self._program.set_binary(path, binary.layout)
                self._found(binary)
                return True
        return False

    def attach_running(self, pid: int) -> None:
        """Look at what a process runs that is there already."""
        with self._telling_missing(Path(f"/proc/{pid}")):
            for binary in runtimes_of_process(pid):
                if self._wants(binary.runtime):
                    self._program.set_layout(pid, binary.layout)
                    self._found(binary)

    def on_tasks(self, records: np.ndarray) -> None:
        """Look at each program that was exec'd, as told by records of table task."""
        for pid in records["pid"][records["kind"] == _EXEC].tolist():
            executable = Path(f"/proc/{pid}/exe")
            if self.expect(executable):
                self.attach_running(pid)

    def finish(self) -> None:
        """Settle what the target was, at the end of the capture."""
        if self.target.runtime != "none":
            return
        if self._library is not None and self._program.reference_mstarts():
            self._describe(self._library)
        elif self._wanted in ("go", "reference"):
            self.missing.append(Missing("runtime", f"the target has no {self._wanted} runtime"))

    def _wants(self, runtime: str) -> bool:
        return self._wanted in ("auto", runtime)

    def _expect_reference(self, path: Path) -> None:
        with self._telling_missing(path):
            self._library = reference.inspect(path)
            if self._library is None:
                raise PretakeError(f"{path} is no compiled reference runtime")
            self._program.set_reference_layout(self._library.layout)
            self._probe(self._library)

    def _found(self, binary: RuntimeBinary) -> None:
        self.missing += [lack for lack in binary.missing if lack not in self.missing]
        if self.target.runtime == "none":
            self._describe(binary)
        self._probe(binary)
        self._symbols.add(binary)

    def _describe(self, binary: RuntimeBinary) -> None:
        self.target.runtime = binary.runtime
        self.target.version = binary.version
        self.target.p_in_syscall = binary.layout.model
        if binary.runtime == "go":
            self.target.build_id = binary.build_id
            self.target.path = str(binary.path.resolve())

    def _probe(self, binary: RuntimeBinary) -> None:
        for probe in binary.probes:
            inode = probe.path.stat().st_ino
            if (probe.handler, inode, probe.file_offset) in self._probed:
                continue
            self._probed.add((probe.handler, inode, probe.file_offset))
            try:
                self._program.attach_uprobe(probe)
            except PretakeError as error:
                self.missing.append(Missing(f"probe on {probe.symbol}", error.problem))
            else:
                self.attached.append(f"uprobe:{probe.symbol}")

    def _is_new(self, path: Path) -> bool:
        if not self._wants("go"):
            return False
        with contextlib.suppress(OSError):
            status = path.stat()
            new = (status.st_dev, status.st_ino) not in self._seen
            self._seen.add((status.st_dev, status.st_ino))
            return new
        return False

    @contextlib.contextmanager
    def _telling_missing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, PretakeError) as error:
            self.missing.append(Missing("runtime", f"{path}: {error}"))
