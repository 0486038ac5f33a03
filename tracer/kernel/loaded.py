"""The BPF programs and their maps, in the kernel.

:mod:`tracer.kernel.fitting` gives them; here the maps get their sizes, which are only known now,
and a program is loaded when something first needs it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from tracer.errors import PretakeError
from tracer.kernel import bpf, features
from tracer.kernel.compiler import UPROBE_PREFIXES
from tracer.kernel.fitting import fitted_programs
from tracer.kernel.object import TASK_STORAGE, MapShape
from tracer.kernel.refused import refusal

__all__ = ["Loaded"]

_PER_CPU_ARRAY: Final = 6  # enum bpf_map_type


class Loaded:
    """Maps that were made, and programs that are loaded into the kernel as they are needed.

    Args:
        entries: how many entries a map has, by its name, where that is not as declared in C.
        defines: what was asked of the programs, for example ``DETAIL_FULL``.

    Attributes:
        shapes: what each map's keys and values are, by its name.
        cpus: how many values a per-CPU map has for each key.

    Raises:
        PretakeError: there are no programs for this kernel, or the caller lacks the privilege.
    """

    def __init__(self, entries: Mapping[str, int], defines: Mapping[str, int]) -> None:
        features.require()
        self._object = fitted_programs(defines)
        self.shapes = {shape.name: shape for shape in self._object.maps}
        self.cpus = bpf.possible_cpus()
        self._fds: dict[str, int] = {}
        self._functions: dict[str, int] = {}
        try:
            for shape in self._object.maps:
                self._fds[shape.name] = _create(shape, entries.get(shape.name, shape.entries))
        except PretakeError:
            self.close()
            raise

    @property
    def uprobe_links(self) -> bool:
        """Whether uprobes are to be had without CAP_SYS_ADMIN."""
        return self._object.uprobe_links

    @property
    def functions(self) -> list[str]:
        """Names of all programs, loaded or not."""
        return sorted(self._object.functions)

    def fd(self, name: str) -> int | None:
        """The descriptor of a map; None where these programs have none of that name."""
        return self._fds.get(name)

    def has_place(self, function: str) -> bool:
        """Whether this kernel has what a program is attached to."""
        return function in self._object.btf_ids

    def load(self, function: str, kind: int, attach: int = 0) -> int:
        """The descriptor of a program; it is loaded at the first call.

        Args:
            function: its name in C.
            kind: ``enum bpf_prog_type``.
            attach: how it will be attached, where a kind has several ways.

        Raises:
            PretakeError: the kernel refuses it, or has nothing to attach it to.
        """
        if function not in self._functions:
            code = self._object.linked(function, self._fds)
            btf_id = self._object.btf_ids.get(function, 0)
            if kind == bpf.TRACING and not btf_id:
                raise PretakeError(
                    f"this kernel has no place for {function}", "see 'pretake doctor'"
                )
            try:
                self._functions[function] = bpf.load_program(function, kind, code, attach, btf_id)
            except bpf.LoadError as error:
                raise PretakeError(
                    f"the kernel refuses the program {function}: {str(error).splitlines()[-1]}",
                    "see 'pretake doctor'",
                ) from error
            # A program that calls itself finds itself there.
            again = self.fd(f"{function}_again")
            if again is not None:
                itself = np.array(self._functions[function], np.uint32)
                bpf.update(again, np.array(0, np.uint32), itself)
        return self._functions[function]

    def read(self, name: str, index: int) -> np.ndarray:
        """The value at an index of an array map; of a per-CPU one, each CPU's."""
        shape = self.shapes[name]
        cpus = (self.cpus,) if shape.kind == _PER_CPU_ARRAY else ()
        value = np.zeros(cpus, shape.dtype)
        bpf.lookup(self._fds[name], np.array(index, np.uint32), value)
        return value

    def look_up(self, name: str, key: np.ndarray) -> np.ndarray | None:
        """The value of a key of a hash map; None where there is none."""
        value = np.zeros((), self.shapes[name].dtype)
        try:
            bpf.lookup(self._fds[name], key, value)
        except KeyError:
            return None
        return value

    def keys(self, name: str, dtype: np.dtype[np.generic]) -> Iterator[np.ndarray]:
        """The keys of a hash map, which may change meanwhile."""
        return bpf.keys(self._fds[name], dtype)

    def update(self, name: str, key: np.ndarray, value: np.ndarray) -> None:
        """Set the value of a key.

        Raises:
            PretakeError: the map is full.
        """
        try:
            bpf.update(self._fds[name], key, value)
        except OSError as error:
            raise PretakeError(f"no room in {name}: {error.strerror}") from error

    def map_bytes(self) -> int:
        """Memory of all maps, as the kernel counts it (before Linux 6.4 about)."""
        return sum(_fdinfo_number(fd, "memlock") for fd in self._fds.values())

    def delete(self, name: str, key: np.ndarray) -> None:
        """Remove a key of a hash map, if it is there."""
        with contextlib.suppress(KeyError):
            bpf.delete(self._fds[name], key)

    def run_statistics(self) -> dict[str, dict[str, int]]:
        """What the kernel says of each loaded program.

        Returns:
            By program: ``run_time_ns`` and ``run_cnt`` (0 unless the kernel counts them, see
            :func:`tracer.kernel.bpf.enable_statistics`), ``recursion_misses`` (how often it was
            left out, because it ran on that CPU already), ``verified_insns`` (instructions that
            the verifier went through; its limit is a million; 0 before Linux 5.16).
        """
        wanted = ("run_time_ns", "run_cnt", "recursion_misses", "verified_insns")
        return {
            name: {number: _fdinfo_number(fd, number) for number in wanted}
            for name, fd in self._functions.items()
        }

    def uprobe_programs(self, prefixes: tuple[str, ...] = UPROBE_PREFIXES) -> dict[str, int]:
        """The descriptors of programs that uprobes run, by name.

        Args:
            prefixes: how the names begin of those that are wanted.

        Raises:
            PretakeError: the kernel refuses one.
        """
        attach = bpf.UPROBE_MULTI if self.uprobe_links else 0
        names = [name for name in self._object.functions if name.startswith(prefixes)]
        return {name: self.load(name, bpf.KPROBE, attach) for name in names}

    def close(self) -> None:
        """Take everything away."""
        for fd in (*self._functions.values(), *self._fds.values()):
            os.close(fd)
        self._functions.clear()
        self._fds.clear()


def _create(shape: MapShape, entries: int) -> int:
    try:
        if shape.kind == TASK_STORAGE:
            return bpf.create_task_storage(shape.name, shape.value)
        return bpf.create_map(shape.name, shape.kind, shape.key, shape.value, entries, shape.flags)
    except PermissionError as error:
        raise refusal() from error
    except OSError as error:
        raise PretakeError(
            f"the kernel makes no map {shape.name} of {entries} entries: {error.strerror}",
            "take a smaller buffer, or see 'pretake doctor'",
        ) from error


def _fdinfo_number(fd: int, name: str) -> int:
    """What the kernel says of a program or map; 0 where it does not say that."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text("utf-8", "surrogateescape").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value)
    return 0
