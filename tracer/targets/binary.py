"""What an adapter answers about a binary, whatever its runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tracer.targets.layout import Probe, RuntimeLayout
from tracer.trace.manifest import Missing, Target

__all__ = ["RuntimeBinary"]


@dataclass(frozen=True, kw_only=True)
class RuntimeBinary:
    """A binary with a runtime whose P, M and G can be read.

    Args:
        path: the file that was inspected.
        runtime: ``go`` or ``reference``.
        version: of the runtime, for Go as in ``go1.27.3``.
        build_id: the GNU build id in hexadecimal, where the linker wrote one.
        layout: for the BPF map; with link-time addresses (see :meth:`RuntimeLayout.at`).
        probes: for uprobes.
        missing: what could not be had, and why.
    """

    path: Path
    runtime: str
    version: str
    build_id: str | None
    layout: RuntimeLayout
    probes: tuple[Probe, ...]
    missing: tuple[Missing, ...] = ()

    @property
    def target(self) -> Target:
        """The same, as the manifest tells it."""
        return Target(
            path=str(self.path),
            build_id=self.build_id,
            runtime=self.runtime,
            version=self.version,
            p_in_syscall=self.layout.model,
        )
