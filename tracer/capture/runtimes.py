"""Which runtimes a capture can read (are *in reach*), from one exec of a process to the next.

Example: a shell starts a Go server. The kernel wakes the tracer at the exec, and the tracer
inspects the server's file. From then on the server is in reach; table ``reach`` tells since
when. Every later process of that file is in reach from its exec on. A Go program that is the
command itself is inspected before it runs. A reference runtime is found by the probe on its
first M. A runtime in a library that a process loads later is found by
:mod:`tracer.capture.late`. A program whose offsets are assumed waits until they are confirmed
(:mod:`tracer.capture.assumed`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import mmap
import os
import time
from collections import deque
from pathlib import Path
from typing import Final

import numpy as np

from tracer.capture.assumed import Assumed
from tracer.capture.binaries import Binaries, Known
from tracer.capture.cgroups import place_of
from tracer.capture.images import Image, Images, Part
from tracer.capture.layouts import ExecImage, FileIdentity, Layouts
from tracer.capture.mappings import Mapping, may_have_runtime
from tracer.capture.options import CaptureOptions
from tracer.capture.target_files import TargetFiles
from tracer.capture.unseen import Unseen
from tracer.errors import PretakeError
from tracer.targets import NoRuntime, reference
from tracer.targets.go import GoBinary
from tracer.targets.program_file import open_program
from tracer.trace.manifest import Missing, Target
from tracer.trace.schema import TABLES, UNKNOWN
from tracer.trace.unknown import counted

__all__ = ["Runtimes"]

_KIND: Final = TABLES["task"].column("kind")
_FORK, _EXEC, _EXIT = (_KIND.code(word) for word in ("fork", "exec", "exit"))
_PATIENCE_S: Final = 0.1
"""How long a capture waits at its begin for a process to confirm what is assumed of it."""
_NOT_LOOKED: Final = Missing(
    "when goroutines stop after they were asked to, and requests to stop that send no signal",
    "only uprobes see these",
    "capture it with --probes exact",
)
_DEAR: Final = "the kernel emulates no instruction there, so each hit costs some 4 us"
_UNKNOWN_PROGRAM: Final = NoRuntime("no program that could be looked at")


class Runtimes:
    """Finds runtimes and tells the BPF programs where they keep their state.

    Args:
        layouts: is told of them.
        options: says which runtimes are wanted.
        images: is told what each process is.
        binaries: looks at files.
        files: opens those of targets; its keeper puts the probes, and without one there are none.

    Attributes:
        target: of the manifest; the first runtime found decides it.
        attached: names of the probed functions.
        unseen: processes whose program nobody could look at.
    """

    def __init__(
        self,
        layouts: Layouts,
        options: CaptureOptions,
        images: Images,
        binaries: Binaries,
        files: TargetFiles,
    ) -> None:
        self.target = Target()
        self.attached: list[str] = []
        self.files = files
        self._layouts = layouts
        self._images = images
        self._binaries = binaries
        self._wanted = options.runtime
        self._probes_go = options.probes != "none"
        self._missing: list[Missing] = []
        # Processes that nobody looked at, by their program: another of it may be looked at yet.
        self.unseen = Unseen()
        self._unprobed: dict[str, int] = {}
        self._told: set[FileIdentity] = set()
        self._to_look: deque[tuple[Image, ExecImage, int]] = deque()
        self._to_probe: deque[tuple[Image, Known]] = deque()
        self._assumed = Assumed(files)
        self._library: Known | None = None
        # Processes in which a probe waits for the library's first M.
        self._awaiting: set[int] = set()
        self._process_of: dict[int, int] = {}
        # What the first program is, in which there is nothing to read.
        self._no_runtime: NoRuntime | None = None
        self._module = options.reference_module

    @property
    def missing(self) -> list[Missing]:
        """What could not be had, and why."""
        missed, why = self._layouts.missed(), "too many ran at one time"
        return [
            *self._missing,
            *self._binaries.missing,
            *self._assumed.missing,
            *self.unseen.missing,
            *counted(missed, "the runtime of {} processes", why),
            *self._images.missing,
            *(
                Missing(f"probes in {count} process{'es' * (count > 1)}", why)
                for why, count in self._unprobed.items()
            ),
        ]

    @property
    def wait_s(self) -> float:
        """Seconds until :meth:`step` has something to do of itself; infinite for never."""
        return self._assumed.wait_s

    @property
    def uprobes(self) -> tuple[str, ...]:
        """How the names begin of the BPF programs that probes will need.

        A target that is a Go program loads no Python, and so no reference runtime.
        """
        go = self._probes_go and self._wants("go")
        reference = self._wants("reference") and self.target.runtime != "go"
        return ("go_",) * go + ("reference_",) * reference

    def expect(self, pid: int, path: Path) -> None:
        """Look at the program that process ``pid``, which waits at its gate, will become."""
        image = Image(pid, 0)
        self._images.add(image)
        if self._wants("go"):
            with contextlib.suppress(PretakeError):
                known = self._look(open_program(path))
                if self._has(known, "go"):
                    self._describe(known)
                    self._to_probe.append((image, known))
        module = self._module or reference.find()
        # A Go program loads no Python; should one of its children, its library is found there.
        if module is not None and self._wants("reference") and not self._to_probe:
            self._expect_reference(module)
        if self._library is not None:
            self._to_probe.append((image, self._library))

    def attach_running(self, pid: int) -> None:
        """Look at what a process runs that is there already."""
        image = Image.of_running(pid)
        self._images.add(image)
        try:
            maps = self.files.maps_of(pid)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                self.unseen.add_nameless()
                return
            told = Missing("runtime", f"its mappings cannot be read: {error.strerror}")
            if told not in self._missing:
                self._missing.append(told)
            return
        program = [m for m in maps if m.executable]
        image.path = self.files.program_of(pid)
        # The program first, which is the runtime's home more often than a library.
        program.sort(key=lambda mapping: mapping.path != image.path)
        for mapping in program:
            if may_have_runtime(mapping, image.path):
                with contextlib.suppress(OSError):
                    self.found_in(image, mapping, self.files.open(pid, mapping.name))

    def on_tasks(self, records: np.ndarray) -> None:
        """Follow each process from program to program, as told by records of table task."""
        kinds = records["kind"]
        threads = records[(kinds == _FORK) & (records["tid"] != records["pid"])]
        self._process_of.update(zip(threads["tid"].tolist(), threads["pid"].tolist(), strict=True))
        for row in records[(kinds == _EXEC) | (records["tid"] == records["pid"])]:
            pid, generation, ts_ns = int(row["pid"]), int(row["generation"]), int(row["ts_ns"])
            if row["kind"] == _EXEC:
                comm = row["comm"].decode("utf-8", "replace")
                self._became(Image(pid, generation, ts_ns, comm, place=place_of(pid)))
            elif row["kind"] == _FORK:
                self._forked(int(row["parent_tid"]), Image(pid, generation, ts_ns))
            elif row["kind"] == _EXIT:
                self._ended(pid)
        for tid in records["tid"][kinds == _EXIT].tolist():
            self._process_of.pop(tid, None)

    def _forked(self, parent_tid: int, image: Image) -> None:
        """A new process is a copy of its parent, and so is what its addresses mean.

        It is not told in table reach: of a runtime's threads it has the one that forked, and so
        no scheduler, until it execs.
        """
        parent = self._images.current(self._process_of.get(parent_tid, parent_tid))
        if parent is not None:
            image.path, image.runtime = parent.path, parent.runtime
            image.parts = list(parent.parts)
        self._images.add(image)

    def _ended(self, pid: int) -> None:
        image = self._images.current(pid)
        if image is not None:
            self._layouts.forget(pid, image.generation)
            self._assumed.ended(image)
        self._images.ended(pid)
        self._awaiting.discard(pid)

    def _became(self, image: Image) -> None:
        """Put a process in reach that has just become another program, if it is not yet."""
        before = self._images.current(image.pid)
        if before is not None:
            self._assumed.ended(before)
        self._images.add(image)
        told = self._layouts.exec_image(image.pid, image.generation)
        if told is None or not self._wants("go"):
            return
        known = self._binaries.find(told.binary)
        if known is not None:
            self._reach(image, told, known)
            return
        try:
            # Now, for it may end; to look at the file takes a while.
            fd = self.files.open(image.pid, "exe")
        except OSError:
            # It has ended; but its file may be where it was.
            path = self._layouts.exec_path(image.pid, image.generation)
            found = None if path is None else told.binary.open_by(path)
            if found is None:
                self.unseen.add(image, told)
            else:
                self._to_look.append((image, told, found))
            return
        if self._layouts.exec_image(image.pid, image.generation + 1) is not None:
            # It is another program by now; the next record tells of that.
            os.close(fd)
            self.unseen.add(image, told)
            return
        self._to_look.append((image, told, fd))

    def _look_at_next(self) -> None:
        """Look at the program of a process that became it."""
        image, told, fd = self._to_look.popleft()
        known = self._binaries.find(told.binary)
        if known is None:
            known = self._look(fd, told.binary)
            if known.changed:
                self.unseen.add(image, told)
                return
            self._binaries.also(told.binary, known)
            for earlier, became in self.unseen.take(told.binary):
                self._is(earlier, became, known)
        else:
            os.close(fd)
        self._reach(image, told, known)

    def _reach(self, image: Image, told: ExecImage, known: Known) -> None:
        if not self._is(image, told, known):
            # Only a Python loads the library, and it takes longer to begin than a probe.
            if self._library is not None and Path(known.name).name.startswith("python"):
                self._to_probe.append((image, self._library))
            return
        assert known.binary is not None
        bias = image.parts[0].bias
        self._to_probe.append((image, known))
        self._layouts.set_binary(told.binary, self._assumed.layout_of(known))
        if told.in_reach and self._assumed.in_reach(known, image.exec_ns or 0):
            image.reach_ns = image.exec_ns
        else:
            self._put_in_reach(image, known, bias)

    def _is(self, image: Image, told: ExecImage, known: Known) -> bool:
        """A process is a program that is known; whether it has a runtime that is wanted."""
        image.path = known.name
        if known.binary is None or not self._has(known, "go"):
            return False
        bias = told.start_code - known.binary.layout.first_code
        image.parts.append(Part(told.start_code, told.end_code, bias, known))
        image.runtime = known
        self._describe(known)
        return True

    def found_in(self, image: Image, mapping: Mapping, fd: int) -> bool:
        """Look at a file that a process has mapped.

        Args:
            image: the process.
            mapping: the first piece of the file that is code.
            fd: a descriptor of the file, which is closed here, sooner or later.

        Returns:
            Whether it has a runtime that is wanted.
        """
        known = self._look(fd)
        if self._library is not None and known.contents == self._library.contents:
            # On an overlay a process has mapped the file of the layer below; a probe meets both.
            known = self._library
        if known.binary is None or not self._wants(known.binary.runtime):
            return False
        layout = known.binary.layout
        bias = 0
        if layout.first_code != UNKNOWN:
            bias = mapping.begin - layout.first_code // mmap.PAGESIZE * mmap.PAGESIZE
        image.parts.append(Part(mapping.begin, mapping.end, bias, known))
        if image.runtime is None:
            image.runtime = known
            self._describe(known)
            if known.binary.runtime == "reference":
                self._layouts.set_reference(layout)
            self._put_in_reach(image, known, bias)
            if known is self._library and image.pid in self._awaiting and image.exec_ns:
                # Its first M was awaited since.
                image.reach_ns = image.exec_ns
            self._to_probe.append((image, known))
        return True

    def step(self) -> bool:
        """Check what is due, and look at the next binary or put the next probes in place.

        Returns whether there is more to do. Each takes some 10 ms, in which another program may
        be exec'd: so a capture that runs does one at a time.
        """
        for image, known, bias in self._assumed.step():
            self._confirmed(image, known, bias)
        if self._to_look:
            self._look_at_next()
        elif self._to_probe:
            self._probe(*self._to_probe.popleft())
        else:
            for known in self._binaries.read_further():
                self._tell_again(known)
        return bool(self._to_look or self._to_probe)

    def _confirmed(self, image: Image, known: Known, bias: int) -> None:
        """A process runs that confirms what was assumed of its program."""
        self._tell_binary(known)
        self._assumed.told(known)
        if self._images.current(image.pid) is image:
            self._put_in_reach(image, known, bias)
        if self.target.path == known.name and isinstance(known.binary, GoBinary):
            self.target.offsets_from = known.binary.offsets_from

    def _tell_binary(self, known: Known) -> None:
        """Tell the BPF programs of a Go program, for every exec to come."""
        if isinstance(known.binary, GoBinary) and not known.binary.is_library:
            self._layouts.set_binary(known.identity, self._assumed.layout_of(known))

    def _tell_again(self, known: Known) -> None:
        """A binary's own debug information tells its layout otherwise than its version did."""
        assert known.binary is not None
        self._layouts.set_binary(known.identity, known.binary.layout)
        for image in self._images.living():
            for part in image.parts:
                if image.runtime is known and part.known is known:
                    self._set_layout(image, known, part.bias)

    def finish_probing(self) -> None:
        """Put all probes in their places, and check what runs already."""
        until_s = time.monotonic() + _PATIENCE_S
        while True:
            if self.step():
                continue
            wait_s = self.wait_s
            if time.monotonic() + wait_s >= until_s:
                return
            time.sleep(wait_s)

    def finish(self) -> None:
        """Settle what the target was, at the end of the capture."""
        while self._to_look:
            self._look_at_next()
        if (
            self.target.runtime == "go"
            and not self._probes_go
            and _NOT_LOOKED not in self._missing
        ):
            self._missing.append(_NOT_LOOKED)
        if self.target.runtime != "none":
            return
        if self._library is not None and self._layouts.reference_mstarts():
            self._describe(self._library)
        elif self._wanted in ("go", "reference"):
            self._missing.append(Missing("runtime", f"the target has no {self._wanted} runtime"))
        elif self._wanted == "auto" and not self.missing:
            found = self._no_runtime or _UNKNOWN_PROGRAM
            self._missing.append(Missing("P, M and G", f"the target is {found.why}", found.mend))

    def _wants(self, runtime: str) -> bool:
        return self._wanted in ("auto", runtime)

    def _has(self, known: Known, runtime: str) -> bool:
        return known.binary is not None and known.binary.runtime == runtime

    def _look(self, fd: int, told: FileIdentity | None = None) -> Known:
        """What is known of a file; the BPF programs are told of a Go program."""
        known, new = self._binaries.look(fd, told)
        self._no_runtime = self._no_runtime or known.no_runtime
        if new and self._wants("go"):
            self._tell_binary(known)
        return known

    def _put_in_reach(self, image: Image, known: Known, bias: int) -> None:
        """Read a process from this moment on, or from when it confirmed what is assumed."""
        placed = self._set_layout(image, known, bias)
        if self._assumed.holds(known):
            self._assumed.add(image, known, bias)
        elif placed:
            image.reach_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def _set_layout(self, image: Image, known: Known, bias: int) -> bool:
        """Put a process in reach that runs already; whether it is."""
        assert known.binary is not None
        layout = self._assumed.layout_of(known).at(bias)
        if isinstance(known.binary, GoBinary) and known.binary.is_library:
            g_tls = self.files.word(image.pid, bias + known.binary.g_tls_slot)
            if known.binary.g_tls_slot == UNKNOWN or not g_tls:
                return False
            layout = dataclasses.replace(layout, g_tls=g_tls)
        try:
            self._layouts.set_layout(image.pid, image.generation, layout)
        except PretakeError as error:
            told = Missing("runtime of a process", error.problem)
            if told not in self._missing:
                self._missing.append(told)
            return False
        # One that has ended may still wait for its parent, in /proc.
        lives = self._images.current(image.pid) is image and Path(f"/proc/{image.pid}").exists()
        if not lives:
            self._layouts.forget(image.pid, image.generation)
        return lives

    def _expect_reference(self, path: Path) -> None:
        try:
            fd = open_program(path)
        except PretakeError as error:
            self._missing.append(Missing("runtime", f"{error}"))
            return
        known, _ = self._binaries.look(fd)
        if known.binary is None or known.binary.runtime != "reference":
            if not self._binaries.missing:
                told = Missing("runtime", f"{path} is no compiled reference runtime")
                self._missing.append(told)
            return
        self._library = known
        self._layouts.set_reference(known.binary.layout)

    def _describe(self, known: Known) -> None:
        """The first runtime is what the manifest calls the target's."""
        binary = known.binary
        assert binary is not None
        self._binaries.in_use(known)
        if self.target.runtime != "none":
            return
        self.target.runtime = binary.runtime
        self.target.version = binary.version
        self.target.p_in_syscall = binary.layout.model
        if binary.runtime == "go":
            self.target.build_id = binary.build_id
            self.target.path = known.name
        if isinstance(binary, GoBinary) and not self._assumed.holds(known):
            self.target.offsets_from = binary.offsets_from

    def _probe(self, image: Image, known: Known) -> None:
        keeper = self.files.keeper
        if keeper is None or self._images.current(image.pid) is not image:
            return
        if self._has(known, "go") and not self._probes_go:
            return
        fd = self._binaries.open(known)
        if fd is None:
            return
        try:
            keeper.probe(image.pid, fd, known.places)
        except OSError as error:
            gone = error.strerror == os.strerror(errno.ESRCH)
            why = "they ended before" if gone else f"{known.name}: {error.strerror}"
            self._unprobed[why] = self._unprobed.get(why, 0) + 1
            return
        finally:
            os.close(fd)
        if known is self._library:
            self._awaiting.add(image.pid)
        if known.identity not in self._told:
            self._told.add(known.identity)
            self.attached += [f"uprobe:{probe.symbol}" for probe in known.probes]
            self._missing += [
                Missing(f"a cheap place for the probe on {probe.symbol}", _DEAR)
                for probe in known.probes
                if not probe.emulated
            ]
