"""Everything that a capture has in the kernel, opened and closed together."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from tracer.capture.followed import Followed
from tracer.capture.keeper import FOR_EVENTS, FOR_FILES, FOR_PROBES, Keeper
from tracer.capture.layouts import Layouts
from tracer.capture.live_counts import LiveCounts
from tracer.capture.privilege import CAP_BPF, NOBODY, maps_work_for
from tracer.errors import PretakeError
from tracer.kernel.compiler import UPROBE_PREFIXES
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
        keeper: looks at targets, and puts programs at their functions; None until a capture
            begins.
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

    def start_keeper(
        self,
        pid: int,
        uprobes: tuple[str, ...] = UPROBE_PREFIXES,
        any_program: bool = False,
    ) -> Keeper:
        """Start the process that keeps what a capture of ``pid`` needs of the capabilities.

        Args:
            pid: the target.
            uprobes: how the names begin of the programs that it is to put at functions; with
                none it puts no probes, and begins sooner.
            any_program: whether it opens programs of processes that are no targets.

        Raises:
            PretakeError: the kernel refuses a program.
        """
        storage = self.loaded.fd("threads")
        assert storage is not None
        keep = FOR_FILES
        if uprobes:
            keep |= FOR_PROBES | (0 if self.loaded.uprobe_links else FOR_EVENTS)
        if not maps_work_for(self.loaded, NOBODY, NOBODY):
            keep |= CAP_BPF
        self.keeper = Keeper(
            pid=pid,
            threads=(storage, self.loaded.shapes["threads"].value),
            programs=self.loaded.uprobe_programs(uprobes) if uprobes else {},
            links=self.loaded.uprobe_links,
            keep=keep,
            any_program=any_program,
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
