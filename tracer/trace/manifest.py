"""The manifest of a trace: what was captured, of which program, what was lost and what it cost.

``manifest.json`` is written when a capture begins (``complete`` false) and again when it ends,
so that a capture that was killed still has one. It may come from a stranger, so the type of every
field is checked before it is used.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Final

from tracer.errors import PretakeError
from tracer.trace.clock import Moment, suspended_ns
from tracer.trace.columns import storable
from tracer.trace.schema import SCHEMA_VERSION
from tracer.trace.unknown import Missing

__all__ = [
    "MANIFEST_NAME",
    "CaptureCost",
    "Machine",
    "Manifest",
    "Missing",
    "Target",
    "manifest_from_json",
]

MANIFEST_NAME: Final = "manifest.json"
"""Its file in the trace's folder."""


@dataclass
class Target:
    """The program that was traced.

    Args:
        path: its executable, as the kernel names it.
        build_id: the ELF build id, in hexadecimal.
        runtime: ``go``, ``reference`` or ``none`` (no runtime that pretake can read).
        version: the runtime's version, for Go as in ``go1.27.3``.
        p_in_syscall: how the runtime marks a P in a system call: ``psyscall`` (Go to 1.25,
            the reference runtime) or ``prunning`` (Go from 1.26).
        offsets_from: what told where a Go program keeps the fields of P, M and G: ``dwarf`` (its
            debug information), ``go1.27.3`` (a row of the shipped table), or ``assumed from
            go1.27.3``: that version's, which the running process confirmed. None where nothing
            told it, or nothing was confirmed.
    """

    path: str | None = None
    build_id: str | None = None
    runtime: str = "none"
    version: str | None = None
    p_in_syscall: str | None = None
    offsets_from: str | None = None


@dataclass
class CaptureCost:
    """What the capture itself took.

    Args:
        wall_s: from attach to detach, seconds.
        cpu_s: the tracer's own user and system time in that span, seconds.
        map_bytes: memory that the kernel took for rings, stacks and threads.
        events_per_s: stored events in each second of ``wall_s``.
        bytes: size of all part files.
        bytes_per_event: the same for each stored event.
        bpf_run_s: time that the BPF programs ran for, on every CPU and for every thread of the
            machine, seconds; from samples (:mod:`tracer.capture.cost`), None where there are none.
        results_unknown: stored calls whose result (``ret``) nobody saw.
        bpf_runs: how often each program ran, by its name; from the same samples.
    """

    wall_s: float | None = None
    cpu_s: float | None = None
    map_bytes: int | None = None
    events_per_s: float | None = None
    bytes: int | None = None
    bytes_per_event: float | None = None
    bpf_run_s: float | None = None
    results_unknown: int = 0
    bpf_runs: dict[str, int] = field(default_factory=dict)


@dataclass
class Machine:
    """What the machine did meanwhile, all programs together; None where it does not tell.

    Args:
        load_begin: load average of the last minute when the capture began.
        load_end: when it ended.
        busy_share: share of all CPU time that was not idle.
        steal_share: share that the hypervisor gave to other machines.
        mhz: frequency of the CPUs at the end, their mean.
    """

    load_begin: float | None = None
    load_end: float | None = None
    busy_share: float | None = None
    steal_share: float | None = None
    mhz: float | None = None


@dataclass
class Manifest:
    """All that a trace says of itself. Times are CLOCK_MONOTONIC nanoseconds.

    Args:
        schema_version: of the tables (:data:`tracer.trace.schema.SCHEMA_VERSION`).
        complete: whether the capture ended in order; else the closed parts are all there is.
        clock: the clock of every ``_ns`` column.
        boot_id: ``/proc/sys/kernel/random/boot_id``: CLOCK_MONOTONIC of two boots do not compare.
        backend: ``bpf`` or ``perf``.
        begin_ns: when the probes were in place.
        end_ns: when they began to be taken away; None while the capture runs or if it was killed.
        begin_boot_ns: ``begin_ns`` by CLOCK_BOOTTIME, which goes on through a suspend.
        end_boot_ns: ``end_ns`` likewise.
        suspended_ns: how long the machine was suspended in between: time that is in no column.
        clocks_ahead_ns: processes of the target whose own CLOCK_MONOTONIC is ahead of the
            trace's (they are in a time namespace), by process id: how far; null where it could not
            be read, such as of one that had ended. What such a process recorded itself has to
            have that taken off.
        command: the program and its arguments; empty when a running process was traced.
        pid: process id of the target.
        exit_status: what the command returned, negative for a signal; None if it still ran.
        attached: names of the probes.
        asked: the options of the capture.
        missing: what could not be had.
        events: records stored, by table.
        lost: records that found no room, by table.
        sent: records that the probes made, by table: ``sent = events + lost``, to the record.
        machine: what the machine did meanwhile.
        workload: what the traced program left of itself (``PRETAKE_RESULT``), such as a
            workload's round trips; None if it left nothing.
        error: why the capture ended early; None if it did not.
    """

    schema_version: int = SCHEMA_VERSION
    complete: bool = False
    clock: str = "CLOCK_MONOTONIC"
    boot_id: str | None = None
    host: str | None = None
    kernel: str | None = None
    arch: str | None = None
    pretake_version: str | None = None
    backend: str = "bpf"
    begin_ns: int | None = None
    end_ns: int | None = None
    begin_boot_ns: int | None = None
    end_boot_ns: int | None = None
    suspended_ns: int | None = None
    clocks_ahead_ns: dict[str, int | None] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    pid: int | None = None
    exit_status: int | None = None
    target: Target = field(default_factory=Target)
    attached: list[str] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    capture: CaptureCost = field(default_factory=CaptureCost)
    machine: Machine = field(default_factory=Machine)
    workload: dict[str, Any] | None = None
    error: str | None = None

    def begins(self, moment: Moment) -> None:
        """The capture begins."""
        self.begin_ns, self.begin_boot_ns = moment.monotonic_ns, moment.boottime_ns

    def ends(self, moment: Moment) -> None:
        """The capture, which began before, ends."""
        assert self.begin_ns is not None
        assert self.begin_boot_ns is not None
        self.end_ns, self.end_boot_ns = moment.monotonic_ns, moment.boottime_ns
        self.suspended_ns = suspended_ns(Moment(self.begin_ns, self.begin_boot_ns), moment)

    def to_json(self) -> str:
        """The manifest as the text of ``manifest.json``."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"
        # An argument of the command may be bytes that are no UTF-8.
        return storable(text)


def manifest_from_json(text: str | bytes, where: str) -> Manifest:
    """Read a manifest and check the type of every field.

    Args:
        text: what stands in ``manifest.json``.
        where: the trace's name, for messages.

    Fields that are absent have their default, fields that are not known are left out.

    Raises:
        PretakeError: it is no manifest, or one of a newer schema than this program reads.
    """
    mend = "capture it again, or name the folder that 'pretake record' wrote"
    try:
        raw = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        raise PretakeError(f"{where} is no trace: its manifest.json is not JSON", mend) from None
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise PretakeError(f"{where} is no trace: its manifest has no schema version", mend)
    if version > SCHEMA_VERSION:
        raise PretakeError(
            f"{where} has trace format {version}, and this pretake reads up to {SCHEMA_VERSION}",
            "open it with a newer pretake",
        )
    try:
        manifest = _read(Manifest, raw, "manifest")
    except TypeError as error:
        raise PretakeError(f"{where} has a damaged manifest: {error}", mend) from None
    assert isinstance(manifest, Manifest)
    return manifest


def _finite(text: str) -> float | None:
    """A number that is none (Python writes NaN and Infinity) is not known."""
    value = float(text)
    return value if math.isfinite(value) else None


def _storable_in(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_storable_in(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): _storable_in(item) for key, item in value.items()}
    return value


def _read(kind: Any, value: Any, name: str) -> Any:  # noqa: ANN401 - any JSON, any type
    """``value`` checked against the type ``kind``; TypeError names the field that is wrong."""
    if kind is Any:
        return _storable_in(value)
    if kind is str and isinstance(value, str):
        return storable(value)
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        if not isinstance(value, dict):
            raise TypeError(f"{name} is no object")
        hints = typing.get_type_hints(kind)
        return kind(**{k: _read(hints[k], v, k) for k, v in value.items() if k in hints})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _read(arguments[0], value, name)
    if origin is list and isinstance(value, list):
        return [_read(arguments[0], item, name) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: _read(arguments[1], item, name) for key, item in value.items()}
    if kind is int and isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise TypeError(f"{name} is out of range")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int to Python, and not to a reader of the manifest.
    if isinstance(value, kind if origin is None else origin) and (
        kind is bool or not isinstance(value, bool)
    ):
        return value
    raise TypeError(f"{name} has the wrong type")
