"""All that a capture has in the kernel, under one roof with one end."""

from __future__ import annotations

from collections.abc import Mapping

from tracer.capture.followed import Followed
from tracer.capture.layouts import Layouts
from tracer.capture.live_counts import LiveCounts
from tracer.errors import PretakeError
from tracer.kernel.loaded import Loaded
from tracer.kernel.probes import Probes
from tracer.kernel.table_rings import RingSizes, TableRings, default_cpu_bytes

__all__ = ["Programs"]


class Programs:
    """The programs in the kernel, and what they are told and tell.

    Args:
        buffer_bytes: for the rings of one CPU; None for what suits the machine.
        max_threads: target threads that can live at one time.
        max_sites: stacks that programs compiled with LIVE tell apart.
        defines: what the programs are compiled with, for example ``DETAIL_FULL``.

    Attributes:
        loaded: the programs themselves, and their maps.
        probes: where they run.
        rings: their records.
        followed: the target threads.
        layouts: where processes keep their runtime.
        live: what is counted in the kernel.

    Nothing is attached until ``probes.attach``, and :meth:`close` (or the process's end, however
    it comes) takes everything away again: it all hangs on file descriptors.

    Raises:
        PretakeError: bcc or headers are missing, the kernel lacks something, or the caller
            lacks the privilege.
    """

    def __init__(
        self,
        buffer_bytes: int | None,
        max_threads: int = 65536,
        max_sites: int = 2048,
        defines: Mapping[str, int] | None = None,
    ) -> None:
        sizes = RingSizes(buffer_bytes or default_cpu_bytes())
        entries = sizes.entries()
        entries |= {"live_sites": max_sites, "live_stacks": max_sites}
        self.loaded = Loaded(entries, defines or {})
        try:
            self.rings = TableRings(self.loaded, sizes)
            self.followed = Followed(self.loaded, max_threads)
        except PretakeError:
            self.loaded.close()
            raise
        self.probes = Probes(self.loaded)
        self.layouts = Layouts(self.loaded)
        self.live = LiveCounts(self.loaded)

    def close(self) -> None:
        """Take everything away."""
        self.probes.detach()
        self.rings.close()
        self.loaded.close()
