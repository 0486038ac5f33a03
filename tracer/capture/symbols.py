"""Names for the code addresses of a capture: tables ``stack`` and ``address``.

While the capture runs, only numbers are kept: stacks in a map in the kernel, and the addresses
that signals interrupted. At the end each address is looked up once, in the function table of the
file that was mapped there, in the program that the process was then.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracer.capture.binaries import Binaries, Known
from tracer.capture.images import Images
from tracer.capture.kernel_stacks import KernelStack
from tracer.errors import PretakeError
from tracer.targets import jail
from tracer.trace.columns import column_array, text_array
from tracer.trace.schema import TABLES, UNKNOWN

__all__ = ["Symbols"]

_DELIVER: Final = TABLES["signal"].column("kind").code("deliver")
_ADDRESSES_LIMIT: Final = 200_000
"""Interrupted addresses that are kept; each is a different instruction."""
_WORDS: Final = TABLES["address"].column("preemption")

Site = tuple[str | None, str | None, int | None, int | None]
"""Function, file, line and word of column preemption."""
_NOTHING: Final[Site] = (None, None, None, None)


class Symbols:
    """Collects code addresses, and tells at the end what they are.

    Args:
        images: what each process was.
        binaries: their files.

    Attributes:
        unknown: addresses of which nothing is known, by the path of the program, since its
            binary is not there any more.
    """

    def __init__(self, images: Images, binaries: Binaries) -> None:
        self.unknown: dict[str, int] = {}
        self._images = images
        self._binaries = binaries
        self._pids: dict[int, int] = {}
        self._interrupted: set[tuple[int, int, int]] = set()

    def on_tasks(self, records: np.ndarray) -> None:
        """Learn from records of table task which process a thread belongs to."""
        self._pids.update(zip(records["tid"].tolist(), records["pid"].tolist(), strict=True))

    def on_signals(self, records: np.ndarray) -> None:
        """Remember the addresses that delivered signals interrupted."""
        if len(self._interrupted) > _ADDRESSES_LIMIT:
            return
        came = records[records["kind"] == _DELIVER]
        columns = (came[name].tolist() for name in ("tid", "generation", "pc"))
        self._interrupted.update(zip(*columns, strict=True))

    def tables(self, stacks: Mapping[int, KernelStack]) -> dict[str, pa.Table]:
        """The rows of tables stack and address; call it once the probes are away.

        Args:
            stacks: by stack_id.
        """
        interrupted = [
            (self._pids[tid], generation, pc)
            for tid, generation, pc in self._interrupted
            if tid in self._pids
        ]
        return self.tables_of(stacks, interrupted)

    def tables_of(
        self,
        stacks: Mapping[int, KernelStack],
        interrupted: Iterable[tuple[int, int, int]] = (),
    ) -> dict[str, pa.Table]:
        """The rows of tables stack and address for some stacks and addresses, where there are any.

        Args:
            stacks: by stack_id.
            interrupted: process, generation and address of instructions.
        """
        frames = [
            (pc, number, stack.pid, stack.generation, depth)
            for number, stack in stacks.items()
            for depth, pc in enumerate(stack.addresses)
        ]
        # What a call returns to may be another line, or another function, than the call's.
        back: dict[tuple[int, int, int], int] = {}
        for pc, _, pid, generation, depth in frames:
            back[pid, generation, pc] = min(depth, 1)
        for place in interrupted:
            back[place] = 0
        sites = self._look_up(back)
        addresses = [
            (*sites[place][:2], place[2], *place[:2], *sites[place][2:]) for place in sorted(sites)
        ]
        tables = {}
        if frames:
            tables["stack"] = _rows(
                "stack", ("pc", "stack_id", "pid", "generation", "depth"), frames
            )
        if addresses:
            tables["address"] = _rows(
                "address",
                ("function", "file", "pc", "pid", "generation", "line", "preemption"),
                addresses,
            )
        return tables

    def _look_up(self, back: dict[tuple[int, int, int], int]) -> dict[tuple[int, int, int], Site]:
        """What each address is, by process, generation and address.

        Args:
            back: by the same, how many bytes before it the instruction lies that is meant.
        """
        wanted: dict[int, dict[int, list[tuple[int, int, int]]]] = defaultdict(dict)
        known: dict[int, Known] = {}
        found = dict.fromkeys(back, _NOTHING)
        for place, less in back.items():
            image = self._images.of(place[0], place[1])
            part = image.part_of(place[2]) if image else None
            if part is not None:
                known[id(part.known)] = part.known
                link_time = place[2] - part.bias - less
                wanted[id(part.known)].setdefault(link_time, []).append(place)
        for number, places in wanted.items():
            for address, site in self._sites(known[number], sorted(places)).items():
                for place in places[address]:
                    found[place] = site
        return found

    def _sites(self, known: Known, addresses: list[int]) -> dict[int, Site]:
        fd = self._binaries.open(known)
        if fd is None:
            self.unknown[known.name] = self.unknown.get(known.name, 0) + len(addresses)
            return {}
        try:
            with contextlib.suppress(PretakeError):
                found = jail.sites(fd, Path(f"/proc/self/fd/{fd}"), np.array(addresses))
                return {
                    address: (site.function, site.file, site.line, _WORDS.code(site.preemption))
                    for address, site in zip(addresses, found, strict=True)
                }
        finally:
            os.close(fd)
        return {}


def _rows(name: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
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
