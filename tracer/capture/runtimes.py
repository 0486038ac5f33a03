"""Which runtime is in reach of a capture: binaries inspected, their layouts and probes in place.

A Go program is known before it runs, when it is the command itself. One that a shell or another
program execs later is inspected when its exec is told, for which the kernel wakes the tracer: it
is in reach some 5 to 40 ms into its life, and every later process of that binary from its exec
on. A reference runtime is known by the probe on its first M.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tracer.capture.options import CaptureOptions
from tracer.capture.programs import Programs
from tracer.capture.symbols import Symbols
from tracer.errors import PretakeError
from tracer.targets import (
    NoRuntime,
    RuntimeBinary,
    jail,
    reference,
    runtime_of,
    runtimes_of_process,
)
from tracer.targets.find import load_bias
from tracer.targets.layout import Probe
from tracer.targets.program_file import open_program
from tracer.trace.manifest import Missing, Target
from tracer.trace.schema import TABLES

__all__ = ["Runtimes"]

_EXEC = TABLES["task"].column("kind").code("exec")
_UNKNOWN_PROGRAM = "no program that could be looked at"


class Runtimes:
    """Finds runtimes and tells the BPF programs where they keep their state.

    Args:
        programs: gets layouts and probes.
        options: says which runtimes are wanted.
        symbols: is told of each binary.

    Attributes:
        target: of the manifest; the first runtime found decides it.
        attached: names of the probed functions.
        missing: what could not be had.
    """

    def __init__(self, programs: Programs, options: CaptureOptions, symbols: Symbols) -> None:
        self.target = Target()
        self.attached: list[str] = []
        self.missing: list[Missing] = []
        self._programs = programs
        self._symbols = symbols
        self._wanted = options.runtime
        # By device and inode: what was inspected already, None where it has no runtime.
        self._binaries: dict[tuple[int, int], RuntimeBinary | None] = {}
        self._fds: list[int] = []
        self._to_probe: deque[Probe] = deque()
        self._probed: set[tuple[str, int, int]] = set()
        # What the first program is, in which there is nothing to read.
        self._no_runtime: NoRuntime | None = None
        self._library: RuntimeBinary | None = None
        module = options.reference_module or reference.find()
        if module is not None and self._wants("reference"):
            self._expect_reference(module)

    def expect(self, path: Path) -> None:
        """Look at a program before it runs."""
        binary, new = self._inspected(path)
        if binary is not None and new:
            self._found(binary)
            self.finish_probing()

    def attach_running(self, pid: int) -> None:
        """Look at what a process runs that is there already."""
        with self._telling_missing(Path(f"/proc/{pid}")):
            for binary in runtimes_of_process(pid):
                if self._wants(binary.runtime):
                    self._programs.layouts.set_layout(pid, binary.layout)
                    self._found(binary)
        self.finish_probing()

    def on_tasks(self, records: np.ndarray) -> None:
        """Look at each program that was exec'd, as told by records of table task."""
        for pid in records["pid"][records["kind"] == _EXEC].tolist():
            self._reach(pid)

    def _reach(self, pid: int) -> None:
        """Put a process in reach that has just become another program, if it is not yet."""
        binary, new = self._inspected(Path(f"/proc/{pid}/exe"))
        if binary is None:
            return
        # It is there already where the binary was known at the exec; here it was not, or
        # became so meanwhile, for this process or for another one.
        if binary.runtime == "go" and self._programs.layouts.layout_of(pid) is None:
            with contextlib.suppress(OSError):
                bias = load_bias(pid, binary.layout.first_code)
                self._programs.layouts.set_layout(pid, binary.layout.at(bias))
        if new:
            self._found(binary)

    def _inspected(self, path: Path) -> tuple[RuntimeBinary | None, bool]:
        """What is known of a program, and whether that is new; a binary is read once."""
        if not self._wants("go"):
            return None, False
        try:
            # Held open: the process may end, and /proc/PID/exe with it, while it is looked at.
            fd = open_program(path)
        except PretakeError:
            return None, False  # gone already
        status = os.fstat(fd)
        key = status.st_dev, status.st_ino
        if key in self._binaries:
            os.close(fd)
            return self._binaries[key], False
        self._binaries[key] = None
        self._fds.append(fd)
        held = Path(f"/proc/self/fd/{fd}")
        with self._telling_missing(held):
            binary = jail.look(fd, held, deep=True)
            if isinstance(binary, NoRuntime):
                self._no_runtime = self._no_runtime or binary
            elif self._wants(binary.runtime):
                self._programs.layouts.set_binary(held, binary.layout)
                self._binaries[key] = binary
        return self._binaries[key], True

    def close(self) -> None:
        """Let go of the files that were looked at."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def step(self) -> bool:
        """Put the next probe in its place; whether there are more to come.

        The kernel takes some 10 ms for each, in which another program may be exec'd: so a
        capture that runs does one at a time.
        """
        if self._to_probe:
            self._probe(self._to_probe.popleft())
        return bool(self._to_probe)

    def finish_probing(self) -> None:
        """Put all probes in their places."""
        while self.step():
            pass

    def finish(self) -> None:
        """Settle what the target was, at the end of the capture."""
        if self.target.runtime != "none":
            return
        if self._library is not None and self._programs.layouts.reference_mstarts():
            self._describe(self._library)
        elif self._wanted in ("go", "reference"):
            self.missing.append(Missing("runtime", f"the target has no {self._wanted} runtime"))
        elif self._wanted == "auto" and not self.missing:
            self.missing.append(
                Missing("P, M and G", f"the target is {self._no_runtime or _UNKNOWN_PROGRAM}")
            )

    def _wants(self, runtime: str) -> bool:
        return self._wanted in ("auto", runtime)

    def _expect_reference(self, path: Path) -> None:
        with self._telling_missing(path):
            self._library = runtime_of(path)
            if self._library is None or self._library.runtime != "reference":
                raise PretakeError(f"{path} is no compiled reference runtime")
            self._programs.layouts.set_reference(self._library.layout)
            self._to_probe += self._library.probes
            self.finish_probing()

    def _found(self, binary: RuntimeBinary) -> None:
        name = _name(binary.path)
        for lack in binary.missing:
            told = Missing(lack.what, lack.why.replace(str(binary.path), name))
            if told not in self.missing:
                self.missing.append(told)
        if self.target.runtime == "none":
            self._describe(binary)
        self._to_probe += binary.probes
        self._symbols.add(binary)

    def _describe(self, binary: RuntimeBinary) -> None:
        self.target.runtime = binary.runtime
        self.target.version = binary.version
        self.target.p_in_syscall = binary.layout.model
        if binary.runtime == "go":
            self.target.build_id = binary.build_id
            self.target.path = str(binary.path.resolve())

    def _probe(self, probe: Probe) -> None:
        try:
            inode = probe.path.stat().st_ino
            if (probe.handler, inode, probe.file_offset) in self._probed:
                return
            self._probed.add((probe.handler, inode, probe.file_offset))
            self._programs.probes.attach_uprobe(probe)
        except PretakeError as error:
            self.missing.append(Missing(f"probe on {probe.symbol}", error.problem))
        except OSError as error:
            self.missing.append(Missing(f"probe on {probe.symbol}", error.strerror or "gone"))
        else:
            self.attached.append(f"uprobe:{probe.symbol}")

    @contextlib.contextmanager
    def _telling_missing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, PretakeError) as error:
            self.missing.append(Missing("runtime", f"{error}".replace(str(path), _name(path))))


def _name(path: Path) -> str:
    """The file that a path below /proc leads to."""
    try:
        return str(path.readlink())
    except OSError:
        return str(path)
