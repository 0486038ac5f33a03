"""The ring of each table: how large it is, what it was sent, and what and when it lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tracer.kernel import bpf
from tracer.kernel.compiler import RING_TABLES
from tracer.kernel.loaded import Loaded
from tracer.kernel.ringbuf import Ring
from tracer.kernel.slots import SlotRing, slots_of

__all__ = ["LossSpan", "RingCount", "TableRings", "ring_entries", "ring_pages"]

# Share of the whole buffer that each table's ring gets, in 64ths.
_SHARES: Final = {
    "sched_switch": 12,
    "sched_wakeup": 8,
    "syscall": 8,
    "block": 16,
    "runtime": 8,
    "pstate": 4,
    "waiting": 4,
    "signal": 2,
    "task": 2,
}
_PAGE: Final = 4096


def ring_pages(buffer_bytes: int) -> dict[str, int]:
    """Pages of each table's ring, powers of two, together at most ``buffer_bytes``.

    A ring has at least one page, so a very small buffer is exceeded.
    """
    pages = {}
    for table in RING_TABLES:
        wanted = max(buffer_bytes * _SHARES[table.name] // 64 // _PAGE, 1)
        pages[table.name] = 1 << (wanted.bit_length() - 1)
    return pages


def ring_entries(buffer_bytes: int) -> dict[str, int]:
    """How many entries the maps that make up the rings have, by map."""
    online, possible = len(bpf.online_cpus()), bpf.possible_cpus()
    entries = {}
    for table in RING_TABLES:
        size = ring_pages(buffer_bytes)[table.name] * _PAGE
        entries[f"{table.name}_ring"] = size
        entries[f"{table.name}_ends"] = possible
        entries[f"{table.name}_slots"] = slots_of(size, online, table.dtype) * online
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
        loaded: the programs, with the entries of :func:`ring_entries`.
        buffer_bytes: as it was given there.

    Attributes:
        rings: by table.
    """

    def __init__(self, loaded: Loaded, buffer_bytes: int) -> None:
        self._loaded = loaded
        self._epoch = 0
        self.rings: dict[str, Ring | SlotRing] = {}
        online, entries = bpf.online_cpus(), ring_entries(buffer_bytes)
        for table in RING_TABLES:
            name, dtype = table.name, table.dtype
            fd = loaded.fd(f"{name}_ring")
            if fd is not None:
                self.rings[name] = Ring(fd, entries[f"{name}_ring"], dtype)
                continue
            slots = entries[f"{name}_slots"] // len(online)
            ends, fd = loaded.fd(f"{name}_ends"), loaded.fd(f"{name}_slots")
            assert ends is not None
            assert fd is not None
            self.rings[name] = SlotRing(ends, fd, online, loaded.cpus, slots, dtype)

    @property
    def wake_fd(self) -> int:
        """Becomes readable when a target execs: the ring of table task."""
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
        programs one call ago, so nobody writes it any more.
        """
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
        self._epoch ^= 1
        epoch = np.array(self._epoch, np.uint32)
        self._loaded.update("loss_epoch", np.array(0, np.uint32), epoch)
        return found

    def close(self) -> None:
        """Let go of the rings' memory."""
        for ring in self.rings.values():
            ring.close()
        self.rings.clear()
