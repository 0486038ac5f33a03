"""The order of memory between the kernel's CPUs, which write into rings, and this reader.

Example: a CPU writes a record and then raises the ring's ``produced``. arm64 may make the two
visible in the other order, so there the writer puts a barrier in between (``PUBLISH`` of
tracer/bpf/arch.bpf.c). The reader needs one too: between its look at ``produced`` and its look at
the records, and between that and its store of ``consumed``, by which it gives their room back.

x86-64 needs neither: it keeps loads in order, and a load before a later store.
"""

from __future__ import annotations

import threading

__all__ = ["fence"]

_LOCK = threading.Lock()


def fence() -> None:
    """Let all loads before this come before all loads and stores behind it.

    Python has no barrier. But a lock's release comes after what is before it, its acquisition
    before what is behind it, and an acquisition after the release of the one before: so two of
    them in a row are one. They take a tenth of a microsecond, once for each drain of a ring.
    """
    for _ in range(2):
        with _LOCK:
            pass
