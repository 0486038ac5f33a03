"""The options of a capture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer.errors import PretakeError

__all__ = [
    "BACKENDS",
    "CALLS",
    "DETAILS",
    "PROBES",
    "RUNTIMES",
    "CaptureOptions",
    "Progress",
    "probe_defines",
]

BACKENDS = ("bpf", "perf")
DETAILS = ("blocks", "full")
RUNTIMES = ("auto", "go", "reference", "none")
PROBES = ("none", "exact", "both")
CALLS = ("inferred", "exact")


@dataclass(frozen=True)
class CaptureOptions:
    """What to capture, and for how long.

    Args:
        buffer_bytes: memory of the rings of one CPU; None: by the machine's memory
            (:func:`tracer.kernel.table_rings.default_cpu_bytes`).
        detail: ``blocks``: system calls that blocked; ``full``: every one.
        calls: how system calls are seen. ``inferred``: from the switches of their threads, with
            entry and return as intervals and no result (tracer/bpf/calls_inferred.bpf.c);
            ``exact``: by the kernel's tracepoints ``sys_enter`` and ``sys_exit``, for which every
            other process of the machine pays too. ``full`` detail is always exact.
        all_signals: every signal, not only SIGURG.
        stacks: the stack of each block, for what its call site was. Only a goroutine with a P,
            or one that has just given it away, makes a block: no other thread's is taken.
        host: the switches of every thread of the machine, not only the target's.
        seconds: end after so long; None: when the target ends.
        force: replace a trace that is there.
        runtime: which runtime's memory to read: ``auto`` finds out, ``none`` reads none.
        reference_module: the compiled library of the reference runtime that the target loads;
            None for the one that this Python would load, if there is one.
        probes: how the transitions of Go's runtime are told. ``none``: from looks at its memory
            (tracer/bpf/ps_seen.bpf.c), without a change to the program's text; ``exact``: by
            uprobes; ``both``, to compare them. The reference runtime tells its own.
        max_threads: target threads that can be followed at one time.
        part_seconds: age at which a part file is closed: what a tracer that is killed loses.
    """

    buffer_bytes: int | None = None
    detail: str = "blocks"
    calls: str = "inferred"
    all_signals: bool = False
    host: bool = False
    stacks: bool = True
    seconds: float | None = None
    force: bool = False
    runtime: str = "auto"
    probes: str = "none"
    reference_module: Path | None = None
    max_threads: int = 65536
    part_seconds: float = 5.0

    def __post_init__(self) -> None:
        for name, value, words in (
            ("detail", self.detail, DETAILS),
            ("calls", self.calls, CALLS),
            ("runtime", self.runtime, RUNTIMES),
            ("probes", self.probes, PROBES),
        ):
            if value not in words:
                raise PretakeError(f"there is no {name} {value!r}", f"one of {', '.join(words)}")
        if self.seconds is not None and not self.seconds > 0:
            raise PretakeError("the time to capture is not above 0 seconds")
        if self.max_threads <= 0 or (self.buffer_bytes is not None and self.buffer_bytes <= 0):
            raise PretakeError("the buffer and the number of threads must be above 0")

    def as_asked(self) -> dict[str, Any]:
        """The options as the manifest keeps them."""
        asked = dataclasses.asdict(self)
        asked["calls"] = "exact" if self.detail == "full" else self.calls
        asked["reference_module"] = self.reference_module and str(self.reference_module)
        return asked


def probe_defines(probes: str) -> dict[str, int]:
    """What the BPF programs are compiled with for one of :data:`PROBES`."""
    return {"none": {"INFER": 1}, "exact": {}, "both": {"INFER": 1, "PROBES_TOO": 1}}[probes]


@dataclass(frozen=True)
class Progress:
    """How a capture goes, told about four times a second.

    Args:
        elapsed_s: since the probes were in place.
        events: records stored so far.
        lost: records lost so far.
        bytes: size of the parts closed so far.
    """

    elapsed_s: float
    events: int
    lost: int
    bytes: int
