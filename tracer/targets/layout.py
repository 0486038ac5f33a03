"""Where a runtime keeps its P, M and G: the one description handed to BPF.

An adapter (:mod:`tracer.targets.go`, :mod:`tracer.targets.reference`) looks at a binary and
answers with a :class:`RuntimeLayout` and a list of :class:`Probe`. The layout goes, one for each
process, into the BPF hash map ``runtime_layouts``; ``tracer/bpf/runtime_memory.bpf.c`` reads every
offset from there. So one compiled program serves every version of every runtime, and nothing
that a binary says ever becomes source text.

The C struct, the numpy type and the dataclass are one declaration, as in
:mod:`tracer.trace.schema`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tracer.trace.unknown import UNKNOWN

__all__ = [
    "CALLERS",
    "LAYOUT_DTYPE",
    "MAX_CALLERS",
    "MODELS",
    "CallerRange",
    "Probe",
    "RuntimeLayout",
    "layout_c_header",
]

MODELS = (
    # How a P stands while its goroutine is in a system call. This is the one place where the
    # two models of Go are told apart; runtime_state.bpf.c has one function for each.
    "psyscall",  # Go to 1.25: m.p is nil, m.oldp is the P, and its status is _Psyscall
    "prunning",  # Go from 1.26, and the reference runtime: m.p stays, status stays _Prunning
)

CALLERS = (
    # Functions of the runtime whose name says why a probed function was called.
    "other",
    "retake",
    "entersyscallblock",
    "stoplockedm",
    "stw",
    "gc",
    "mexit",
    "panic",
)

MAX_CALLERS = 16
"""Room for address ranges of callers in one layout."""

_CALLER_DTYPE = np.dtype([("begin", "<i8"), ("end", "<i8"), ("caller", "<i8")])


@dataclass(frozen=True)
class CallerRange:
    """The code of one function that calls probed functions, to tell them by return address.

    Args:
        begin: link-time address of its first byte.
        end: link-time address just after its last byte.
        caller: its word in :data:`CALLERS`.
    """

    begin: int
    end: int
    caller: str


def _address(meaning: str, default: int = UNKNOWN) -> int:
    number: int = field(default=default, metadata={"type": "<i8", "meaning": meaning})
    return number


def _number(meaning: str, default: int = UNKNOWN) -> int:
    number: int = field(default=default, metadata={"type": "<i4", "meaning": meaning})
    return number


@dataclass(frozen=True)
class RuntimeLayout:
    """Offsets in bytes of the fields that are read, from the begin of their struct.

    ``UNKNOWN`` (-1) where an offset is not known: what hangs on it is then null in the trace,
    and everything else is still read. The names are those of Go's ``runtime2.go``
    (``g``, ``m``, ``p``, ``schedt``), with the struct before the field.
    """

    bias: int = _address("run-time address minus link-time address (0 unless PIE)", 0)
    first_code: int = _address("link-time address of the first executable segment")
    sched: int = _address("link-time address of the scheduler's own struct (runtime.sched)")

    allp: int = _address("link-time address of the slice of all Ps (runtime.allp)")

    model: str = field(
        default="prunning",
        metadata={"type": "<i4", "meaning": "how a P in a system call looks", "words": MODELS},
    )
    int_size: int = _number("bytes of p.id, statuses, queue positions and counters: 4 or 8", 4)
    g_tls: int = _number("offset from FS base to the pointer to g; unknown: M is found by tid")

    g_m: int = _number("g.m: the M it runs on")
    g_goid: int = _number("g.goid (8 bytes)")
    g_status: int = _number("g.atomicstatus")

    m_id: int = _number("m.id (8 bytes)")
    m_procid: int = _number("m.procid: its thread (8 bytes)")
    m_curg: int = _number("m.curg: the goroutine it runs")
    m_p: int = _number("m.p: the P it holds")
    m_oldp: int = _number("m.oldp: the P it had before the system call")
    m_nextp: int = _number("m.nextp: the P it was given while it slept")
    m_syscalltick: int = _number(
        "m.syscalltick: p.syscalltick when the call was entered (4 bytes)"
    )
    m_sched: int = _number("M's pointer to the scheduler, where that is no global")

    p_id: int = _number("p.id")
    p_status: int = _number("p.status")
    p_m: int = _number("p.m: the M that holds it")
    p_syscalltick: int = _number("p.syscalltick (4 bytes)")
    p_runqhead: int = _number("p.runqhead")
    p_runqtail: int = _number("p.runqtail")
    p_runnext: int = _number("p.runnext: one more runnable goroutine, unless nil")
    p_timer: int = _number(
        "when P's earliest timer is due (8 bytes, 0 for none); from Go 1.23 on "
        "p.timers.minWhenHeap, before it p.timer0When"
    )
    p_timer_modified: int = _number(
        "the earliest that a timer was moved to (8 bytes, 0 for none); p.timers.minWhenModified, "
        "p.timerModifiedEarliest"
    )

    sched_lock: int = UNKNOWN
    """sched.lock, by which code that has no symbols tells where sched is; BPF does not read it."""
    sched_npidle: int = _number("sched.npidle: idle Ps")
    sched_nmspinning: int = _number("sched.nmspinning: Ms looking for work")
    sched_runqsize: int = _number("sched.runqsize, from Go 1.25 on sched.runq.size")
    sched_gcwaiting: int = _number("sched.gcwaiting: the world stops or is stopped (1 byte)")
    sched_allp: int = _number("the scheduler's pointer to a Python list of all Ps")

    callers: tuple[CallerRange, ...] = ()

    def at(self, bias: int) -> RuntimeLayout:
        """The same layout in a process that has the binary loaded ``bias`` bytes higher."""
        return dataclasses.replace(self, bias=bias)

    def with_offsets(self, offsets: Mapping[str, int]) -> RuntimeLayout:
        """The same layout with these fields set, by name."""
        values: dict[str, Any] = dict(offsets)
        return dataclasses.replace(self, **values)

    def pack(self) -> np.ndarray:
        """The layout as one record of :data:`LAYOUT_DTYPE`, the value of the BPF map."""
        if len(self.callers) > MAX_CALLERS:
            raise ValueError(f"{len(self.callers)} callers, room for {MAX_CALLERS}")
        record = np.zeros((), dtype=LAYOUT_DTYPE)
        for f in _packed_fields():
            value = getattr(self, f.name)
            words = f.metadata.get("words")
            record[f.name] = words.index(value) if words else value
        for i, caller in enumerate(self.callers):
            record["callers"][i] = (caller.begin, caller.end, CALLERS.index(caller.caller))
        return record


def _packed_fields() -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(RuntimeLayout) if "type" in f.metadata]


def _layout_dtype() -> np.dtype[np.void]:
    members: list[Any] = [(f.name, f.metadata["type"]) for f in _packed_fields()]
    members.append(("callers", _CALLER_DTYPE, (MAX_CALLERS,)))
    return np.dtype(members, align=True)


LAYOUT_DTYPE: np.dtype[np.void] = _layout_dtype()
"""The numpy type of ``struct runtime_layout``."""


def layout_c_header() -> str:
    """``struct runtime_layout`` and its word numbers, for the BPF programs to include."""
    c_types = {"<i8": "__s64", "<i4": "__s32"}
    lines = ["/* Made from tracer/targets/layout.py; do not edit. */", "#pragma once", ""]
    for prefix, words in (("RUNTIME_MODEL", MODELS), ("RUNTIME_CALLER", CALLERS)):
        lines.append(f"enum {prefix.lower()} {{")
        lines += [f"\t{prefix}_{word.upper()} = {i}," for i, word in enumerate(words)]
        lines += ["};", ""]
    lines += [f"#define RUNTIME_MAX_CALLERS {MAX_CALLERS}", ""]
    lines += ["struct runtime_caller_range {"]
    lines += [f"\t__s64 {name};" for name in _CALLER_DTYPE.names or ()]
    lines += ["};", "", "struct runtime_layout {"]
    end = 0
    for f in _packed_fields():
        lines.append(f"\t{c_types[f.metadata['type']]} {f.name}; /* {f.metadata['meaning']} */")
        end += np.dtype(f.metadata["type"]).itemsize
    if end % 8:
        lines.append("\t__s32 padding;")
    lines += ["\tstruct runtime_caller_range callers[RUNTIME_MAX_CALLERS];", "};", ""]
    return "\n".join(lines)


@dataclass(frozen=True)
class Probe:
    """One uprobe: where it goes and which BPF function handles it.

    Args:
        path: the file that holds the code, as this process can open it (so, for a container,
            below ``/proc/PID/root``).
        symbol: the function's name, for messages; never resolved again.
        file_offset: where its first instruction lies in the file (what the kernel wants).
        handler: name of the function in ``tracer/bpf/runtime_probes.bpf.c``.
        emulated: whether it stands on an instruction that the kernel emulates
            (:mod:`tracer.targets.emulated`); on another it costs several times as much.
    """

    path: Path
    symbol: str
    file_offset: int
    handler: str
    emulated: bool = True
