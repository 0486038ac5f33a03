"""The ring of each table: its size, how many records were sent, and how many were lost when."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tracer.kernel import bpf
from tracer.kernel.compiler import RING_TABLES
from tracer.kernel.loaded import Loaded
from tracer.kernel.ringbuf import Ring
from tracer.kernel.slots import SlotRing, slots_of
from tracer.trace.columns import Table

__all__ = [
    "LossSpan",
    "RingCount",
    "RingSizes",
    "TableRings",
    "default_cpu_bytes",
    "spare_cpu_bytes",
]

# Share of the whole buffer that each table's ring gets, in 64ths. Slots are a power of two: where
# the whole is one, too, these shares just reach one each, so that little is left unused.
_SHARES: Final = {
    "sched_switch": 12,
    "sched_wakeup": 6,
    "syscall": 9,
    "block": 14,
    "runtime": 8,
    "pstate": 6,
    "waiting": 5,
    "signal": 2,
    "task": 2,
}
# For CPUs that are not there, but may come: as large a ring as others have, if there are few.
_SPARE_BYTES: Final = 64 << 20
_SPARE_LEAST: Final = 64 << 10
# What the kernel allows is less than 4 GiB, and a power of two.
_SHARED_MOST: Final = 2 << 30


def default_cpu_bytes() -> int:
    """Memory for the rings of one CPU, where nobody says: 1/256 of the machine's for all.

    Between 2 and 32 MiB. Example: 32 MiB each on 2 CPUs with 24 GiB, 8 MiB on 128 with 256 GiB.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(max(memory // 256 // len(bpf.online_cpus()), 2 << 20), 32 << 20)


def spare_cpu_bytes(cpu_bytes: int, absent: int) -> int:
    """Memory for the rings of a CPU that is not there, but may come: 64 MiB for all such.

    At most what a CPU that is there has, and 64 KiB at least. Example: 64 KiB each of 1,023.

    Args:
        cpu_bytes: for the rings of a CPU that is there.
        absent: how many are not.
    """
    return min(cpu_bytes, max(_SPARE_BYTES // max(absent, 1), _SPARE_LEAST))


@dataclass(frozen=True)
class RingSizes:
    """How large the rings are.

    Args:
        cpu_bytes: for the rings of all tables of one CPU. The slots of each are a power of two,
            and one at least; so a very small size is exceeded.
        online: the CPUs that are there.
        possible: how many may be there at one time: the kernel's count of values in a per-CPU map.
    """

    cpu_bytes: int
    online: Sequence[int] = field(default_factory=bpf.online_cpus)
    possible: int = field(default_factory=bpf.possible_cpus)

    def slots(self, table: Table) -> list[int]:
        """Of a table, by CPU. One that is not there has some too: it may come at any time."""
        share = _SHARES[table.name]
        own = slots_of(self.cpu_bytes * share // 64, table.dtype)
        spare_bytes = spare_cpu_bytes(self.cpu_bytes, self.possible - len(self.online))
        spare = slots_of(spare_bytes * share // 64, table.dtype)
        there = set(self.online)
        return [own if cpu in there else spare for cpu in range(self.possible)]

    def ring_bytes(self, table: Table) -> int:
        """Of a ring buffer that all CPUs share: a power of two, from a page to 2 GiB."""
        wanted = self.cpu_bytes * len(self.online) * _SHARES[table.name] // 64
        wanted = min(wanted, _SHARED_MOST)
        return 1 << (max(wanted, mmap.PAGESIZE).bit_length() - 1)

    def entries(self) -> dict[str, int]:
        """How many entries the maps that make up the rings have, by map."""
        entries = {}
        for table in RING_TABLES:
            entries[f"{table.name}_ring"] = self.ring_bytes(table)
            entries[f"{table.name}_ends"] = self.possible
            entries[f"{table.name}_slots"] = sum(self.slots(table))
        return entries


@dataclass(frozen=True)
class RingCount:
    """Records of one table since the programs were loaded, over all CPUs."""

    sent: int
    lost: int


@dataclass(frozen=True)
class LossSpan:
    """A span in which one ring lost records on one CPU, in nanoseconds."""

    table: str
    cpu: int
    begin_ns: int
    end_ns: int
    lost: int


class TableRings:
    """The rings of programs that are loaded.

    Args:
        loaded: the programs, with the entries of ``sizes``.
        sizes: of the rings.

    Attributes:
        rings: by table.
    """

    def __init__(self, loaded: Loaded, sizes: RingSizes) -> None:
        self._loaded = loaded
        self._epoch = 0
        self._spans_taken = 0
        self.rings: dict[str, Ring | SlotRing] = {}
        for number, table in enumerate(RING_TABLES):
            name, dtype = table.name, table.dtype
            fd = loaded.fd(f"{name}_ring")
            if fd is not None:
                size = sizes.ring_bytes(table)
                self.rings[name] = Ring(fd, size, dtype)
                # With as many of each CPU it is half full.
                every = slots_of(size // 2 // len(sizes.online), dtype)
                key = np.array(number, np.uint32)
                loaded.update("wake_every", key, np.array(every, np.uint64))
                continue
            ends, fd = loaded.fd(f"{name}_ends"), loaded.fd(f"{name}_slots")
            assert ends is not None
            assert fd is not None
            self.rings[name] = SlotRing(ends, fd, sizes.slots(table), dtype)

    @property
    def wake_fd(self) -> int:
        """Becomes readable when a target execs, or a ring is half full: the ring of table task."""
        fd = self._loaded.fd("task_ring")
        assert fd is not None
        return fd

    def counts(self) -> dict[str, RingCount]:
        """Records sent to and lost by each ring, by table."""
        result = {}
        for number, table in enumerate(RING_TABLES):
            ring = self.rings[table.name]
            if isinstance(ring, SlotRing):
                result[table.name] = RingCount(ring.sent, ring.lost)
                continue
            per_cpu = self._loaded.read("ring_counts", number)
            result[table.name] = RingCount(int(per_cpu["sent"].sum()), int(per_cpu["lost"].sum()))
        return result

    def take_loss_spans(self) -> list[LossSpan]:
        """The spans of loss of the last epoch but this; the next epoch begins.

        Call it now and then while records are lost. The half that is read was left by the
        programs one call ago, so nobody writes it any more. Where every loss is in a span that
        was taken, nothing is read, and no epoch begins.
        """
        if self._spans_taken == sum(count.lost for count in self.counts().values()):
            return []
        old = (self._epoch + 1) & 1
        found = []
        for number, table in enumerate(RING_TABLES):
            slot = 2 * number + old
            per_cpu = self._loaded.read("loss_spans", slot)
            for cpu in np.flatnonzero(per_cpu["lost"]).tolist():
                begin, end, lost = per_cpu[cpu].item()
                found.append(LossSpan(table.name, cpu, begin, end, lost))
            if per_cpu["lost"].any():
                empty = np.zeros_like(per_cpu)
                self._loaded.update("loss_spans", np.array(slot, np.uint32), empty)
        self._spans_taken += sum(span.lost for span in found)
        self._epoch ^= 1
        epoch = np.array(self._epoch, np.uint32)
        self._loaded.update("loss_epoch", np.array(0, np.uint32), epoch)
        return found

    def close(self) -> None:
        """Let go of the rings' memory."""
        for ring in self.rings.values():
            ring.close()
        self.rings.clear()
