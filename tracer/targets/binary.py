"""What an adapter returns about a binary, the same for every runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracer.targets.layout import Probe, RuntimeLayout
from tracer.trace.unknown import Missing

if TYPE_CHECKING:
    from tracer.trace.manifest import Target

__all__ = ["NoRuntime", "RuntimeBinary"]


@dataclass(frozen=True)
class NoRuntime:
    """A file in which there is no runtime that can be read.

    Args:
        why: what it is instead, such as ``a program for 32-bit x86``; it goes on from "it is".
        mend: what helps, one line; empty where nothing does.
    """

    why: str
    mend: str = ""


@dataclass(frozen=True, kw_only=True)
class RuntimeBinary:
    """A binary with a runtime whose P, M and G can be read.

    Args:
        path: the file that was inspected.
        runtime: ``go`` or ``reference``.
        version: of the runtime, for Go as in ``go1.27.3``.
        arch: what it was built for (:attr:`tracer.arch.Architecture.name`).
        build_id: the GNU build id in hexadecimal, where the linker wrote one.
        layout: for the BPF map; with link-time addresses (see :meth:`RuntimeLayout.at`).
        probes: for uprobes.
        missing: what could not be had, and why.
    """

    path: Path
    runtime: str
    version: str
    arch: str
    build_id: str | None
    layout: RuntimeLayout
    probes: tuple[Probe, ...]
    missing: tuple[Missing, ...] = ()

    @property
    def target(self) -> Target:
        """The same, as the manifest tells it."""
        # Arrow comes with it, which the parser of strangers' files has no use for.
        from tracer.trace.manifest import Target

        return Target(
            path=str(self.path),
            build_id=self.build_id,
            runtime=self.runtime,
            version=self.version,
            p_in_syscall=self.layout.model,
        )
