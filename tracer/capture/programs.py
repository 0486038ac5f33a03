"""Everything that a capture has in the kernel, opened and closed together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from tracer.capture.followed import Followed
from tracer.capture.keeper import Keeper
from tracer.capture.layouts import Layouts
from tracer.capture.live_counts import LiveCounts
from tracer.capture.privilege import NOBODY, capture_user
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
        probes: the tracepoints where they run.
        keeper: puts them at functions; None until a capture begins.
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
        self.keeper: Keeper | None = None

    def start_keeper(self, pid: int, command: int | None = None, *, drop: bool = False) -> Keeper:
        """Start the process that keeps what a capture of ``pid`` needs of the capabilities.

        Args:
            pid: the target.
            command: a descriptor of it, if it was started to be traced.
            drop: whether the tracer gives up what it is.

        Raises:
            PretakeError: it does not start, or the kernel refuses a program.
        """
        writer = capture_user()[0] if drop else os.geteuid()
        # Root's own trace is written by nobody, and root's again at the end.
        owner = (os.geteuid(), os.getegid()) if writer == NOBODY != os.geteuid() else None
        storage = self.loaded.fd("threads")
        assert storage is not None
        self.keeper = Keeper(
            pid=pid,
            command=command,
            threads=(storage, self.loaded.shapes["threads"].value),
            programs=self.loaded.uprobe_programs(),
            links=self.loaded.uprobe_links,
            owner=owner,
            writer=writer,
        )
        return self.keeper

    def detach(self) -> None:
        """Take every probe away; rings and counters stay to be read.

        Raises:
            PretakeError: the machine's threads cannot be looked at for the last time.
        """
        if self.keeper is not None:
            with contextlib.suppress(OSError):
                self.keeper.leave()
        self.probes.detach()
        self.followed.tell_calls_over()

    def close(self) -> None:
        """Take everything away."""
        self.probes.detach()
        if self.keeper is not None:
            self.keeper.close()
            self.keeper = None
        self.rings.close()
        self.loaded.close()
