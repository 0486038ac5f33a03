"""What the code addresses of a capture mean: tables stack and address.

While the capture runs, only numbers are kept: stacks in a map of the kernel's, and the addresses
that signals interrupted. At its end each address is looked up once in the function table of the
program that it belongs to.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracer.capture.kernel_stacks import kernel_stacks
from tracer.capture.programs import Programs
from tracer.errors import PretakeError
from tracer.targets import jail
from tracer.targets.binary import RuntimeBinary
from tracer.trace.schema import TABLES, UNKNOWN, column_array, text_array

__all__ = ["Symbols"]

_DELIVER: Final = TABLES["signal"].column("kind").code("deliver")
_ADDRESSES_LIMIT: Final = 200_000
"""Interrupted addresses that are kept; each is a different instruction."""


class Symbols:
    """Collects code addresses, and tells at the end what they are.

    Args:
        programs: whose stacks and layouts are read.
    """

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        # Held open: at the end the process may be gone, and /proc/PID/exe with it.
        self._binaries: list[tuple[bytes, int]] = []
        self._pids: dict[int, int] = {}
        self._interrupted: set[tuple[int, int]] = set()

    def add(self, binary: RuntimeBinary) -> None:
        """Remember a binary whose processes are in reach."""
        if binary.runtime != "go":
            return
        with contextlib.suppress(OSError):
            fd = os.open(binary.path, os.O_RDONLY | os.O_CLOEXEC)
            self._binaries.append((_identity_of(binary.layout.pack()), fd))

    def on_tasks(self, records: np.ndarray) -> None:
        """Learn from records of table task which process a thread belongs to."""
        self._pids.update(zip(records["tid"].tolist(), records["pid"].tolist(), strict=True))

    def on_signals(self, records: np.ndarray) -> None:
        """Remember the addresses that delivered signals interrupted."""
        if len(self._interrupted) > _ADDRESSES_LIMIT:
            return
        came = records[records["kind"] == _DELIVER]
        self._interrupted.update(zip(came["tid"].tolist(), came["pc"].tolist(), strict=True))

    def tables(self) -> dict[str, pa.Table]:
        """The rows of tables stack and address; call it once the probes are away."""
        interrupted = [(self._pids[t], pc) for t, pc in self._interrupted if t in self._pids]
        return self.tables_of(kernel_stacks(self._programs.loaded), interrupted)

    def tables_of(
        self,
        stacks: Mapping[int, tuple[int, list[int]]],
        interrupted: Iterable[tuple[int, int]] = (),
    ) -> dict[str, pa.Table]:
        """The rows of tables stack and address for some stacks and addresses, where there are any.

        Args:
            stacks: by stack_id, the process and its addresses, innermost first.
            interrupted: process and address of instructions.
        """
        frames = [
            (pc, number, pid, depth)
            for number, (pid, addresses) in stacks.items()
            for depth, pc in enumerate(addresses)
        ]
        # What a call returns to may be another line, or another function, than the call's.
        back: dict[int, dict[int, int]] = defaultdict(dict)
        for pc, _, pid, depth in frames:
            back[pid][pc] = min(depth, 1)
        for pid, pc in interrupted:
            back[pid][pc] = 0
        addresses = [row for pid, pcs in sorted(back.items()) for row in self._look_up(pid, pcs)]
        rows = {
            "stack": (("pc", "stack_id", "pid", "depth"), frames),
            "address": (
                ("pid", "pc", "function", "file", "line", "preemption"),
                addresses,
            ),
        }
        return {name: _rows(name, *told) for name, told in rows.items() if told[1]}

    def close(self) -> None:
        """Let go of the binaries."""
        for _, fd in self._binaries:
            os.close(fd)
        self._binaries.clear()

    def _look_up(self, pid: int, pcs: dict[int, int]) -> list[tuple[Any, ...]]:
        unknown = [(pid, pc, None, None, None, None) for pc in sorted(pcs)]
        layout = self._programs.layouts.layout_of(pid)
        if layout is None:
            return unknown
        bias = int(layout["bias"])
        wanted = _identity_of(layout)
        for identity, fd in self._binaries:
            if identity != wanted:
                continue
            with contextlib.suppress(PretakeError):
                return _described(fd, pid, pcs, bias)
        return unknown


def _described(fd: int, pid: int, pcs: dict[int, int], bias: int) -> list[tuple[Any, ...]]:
    words = TABLES["address"].column("preemption")
    ordered = sorted(pcs)
    addresses = np.array([pc - bias - pcs[pc] for pc in ordered])
    found = jail.sites(fd, Path(f"/proc/self/fd/{fd}"), addresses)
    return [
        (pid, pc, site.function, site.file, site.line, words.code(site.preemption))
        for pc, site in zip(ordered, found, strict=True)
    ]


def _identity_of(layout: np.ndarray) -> bytes:
    """What two processes of one binary have in common: all but where it was loaded."""
    same = layout.copy()
    same["bias"] = 0
    return same.tobytes()


def _rows(name: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> pa.Table:
    table = TABLES[name]
    given = dict(zip(columns, zip(*rows, strict=True), strict=True))
    arrays = []
    for column in table.columns:
        values = given[column.name]
        if column.is_text:
            arrays.append(text_array(values))
        else:
            numbers = [UNKNOWN if value is None else value for value in values]
            arrays.append(column_array(column, np.array(numbers, column.numpy_type)))
    return pa.Table.from_arrays(arrays, schema=table.arrow_schema)
