"""Captures while a CPU comes up and goes, and with many CPUs that may come.

The target blocks as often as it is told on the CPU that it is told
(tests/kernels/counted_reads.py): a byte is written to it only when it waits for one. So all counts
are exact, and nothing depends on time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from analysis.names import syscall_numbers
from tests.kernels.commands import Command, Trial, WrongError, expect, started, well
from tracer.kernel.bpf import online_cpus, possible_cpus
from tracer.trace.reader import Trace

__all__ = ["cpu_comes", "cpu_comes_host", "cpu_comes_perf", "many_cpus", "many_cpus_perf"]

_CPU: Final = 1
"""That comes and goes."""
_SWITCH: Final = Path(f"/sys/devices/system/cpu/cpu{_CPU}/online")
_PROGRAM: Final = Path(__file__).with_name("counted_reads.py")
_FIFOS: Final = ("orders", "data", "answers")


@dataclass(frozen=True)
class Part:
    """What the target did after one order: ``count`` blocking reads on ``cpu``."""

    cpu: int
    count: int
    pid: int
    fd: int
    begin_ns: int
    end_ns: int


class Target:
    """The target's other side: it gives orders, and a byte for each read that waits.

    Args:
        folder: for FIFOs.
    """

    def __init__(self, folder: Path) -> None:
        self.command = [sys.executable, str(_PROGRAM), *(str(folder / name) for name in _FIFOS)]
        for name in _FIFOS:
            (folder / name).unlink(missing_ok=True)
            os.mkfifo(folder / name)
        # For reading too: so no open waits for the other side.
        self._orders, self._data, self._answers = (
            os.open(folder / name, os.O_RDWR | os.O_CLOEXEC) for name in _FIFOS
        )
        self._heard = b""

    def hear(self, record: Command) -> str:
        """The next line of the target; WrongError where the capture ended instead."""
        ended = os.pidfd_open(record.pid)
        try:
            while b"\n" not in self._heard:
                readable, _, _ = select.select([self._answers, ended], [], [])
                if self._answers not in readable:
                    well(*record.end())
                    raise WrongError("the capture ended before its target")
                self._heard += os.read(self._answers, 1 << 12)
        finally:
            os.close(ended)
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def read(self, record: Command, cpu: int, count: int, *, go: bool = True) -> Part:
        """Have it read ``count`` bytes on a CPU; ``go``: it has to be told to go there."""
        os.write(self._orders, f"{cpu if go else '-'} {count}\n".encode())
        begun = json.loads(self.hear(record))
        seen = -1
        for _ in range(count):
            # A thread on its way out of a read still looks blocked in it. So it must also have
            # left its CPU once more since the last byte.
            while not (_reads(**begun) and _voluntary(begun["pid"]) > seen):
                pass
            seen = _voluntary(begun["pid"])
            os.write(self._data, b"x")
        told = json.loads(self.hear(record))
        expect(
            f"blocks of {count} reads on CPU {cpu}, as the kernel counts", told["voluntary"], count
        )
        return Part(cpu, count, begun["pid"], begun["fd"], told["begin_ns"], told["end_ns"])

    def end(self) -> None:
        """Let it end. It is told, for it sees no end of file: the capture is a fork of this."""
        os.write(self._orders, b"end\n")
        for fd in (self._orders, self._data, self._answers):
            os.close(fd)


def _reads(pid: int, fd: int) -> bool:
    fields = Path(f"/proc/{pid}/syscall").read_text().split()
    (nr,) = syscall_numbers(os.uname().machine, "read")
    return fields[0] == str(nr) and int(fields[1], 16) == fd


def _voluntary(pid: int) -> int:
    told = re.search(
        r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
    )
    assert told is not None
    return int(told[1])


def _switched(trace: Trace, parts: list[Part]) -> None:
    """Each block of each part is there, on the CPU where it was."""
    switches = trace.frame("sched_switch")
    for part in parts:
        mine = switches[
            (switches["prev_tid"] == part.pid)
            & (switches["prev_state"] == "blocked")
            & switches["ts_ns"].between(part.begin_ns, part.end_ns)
        ]
        on_cpus = mine["cpu"].value_counts().to_dict()
        expect(f"blocks of {part.count} reads, by CPU", on_cpus, {part.cpu: part.count})
    expect("lost records", {k: v for k, v in trace.manifest.lost.items() if v}, {})
    expect("spans of loss", len(trace.frame("loss")), 0)


def _absent() -> None:
    """CPU 1 is not there."""
    if _CPU in online_cpus():
        _SWITCH.write_text("0")


@contextlib.contextmanager
def _captured(trace: Path, *options: str) -> Iterator[tuple[Target, Command]]:
    """A target that waits for its first order, and its capture; both end with the block.

    CPU 1, if there is one, is not there before and after it.
    """
    _absent()
    target = Target(trace.parent)
    with started("record", "-q", *options, "-o", str(trace), "--", *target.command) as record:
        try:
            expect("the target's first line", target.hear(record), "ready")
            yield target, record
            target.end()
            well(*record.end())
        finally:
            _absent()


def _scene(trial: Trial, name: str, *options: str) -> tuple[Trace, list[Part]]:
    """A capture of four parts, at whose begin CPU 1 is not there."""
    trace = trial.folder / f"{name}.pretake"
    with _captured(trace, *options) as (target, record):
        parts = [target.read(record, 0, 11)]
        _SWITCH.write_text("1")
        parts.append(target.read(record, _CPU, 23))
        # It waits there for the next order, and wakes up on the CPU that is left.
        _SWITCH.write_text("0")
        parts.append(target.read(record, 0, 17, go=False))
        _SWITCH.write_text("1")
        parts.append(target.read(record, _CPU, 29))
    found = Trace(trace)
    _switched(found, parts)
    return found, parts


def cpu_comes(trial: Trial) -> None:
    """Each blocking call is told, of a CPU that came up, went and came again."""
    trace, parts = _scene(trial, "cpu-comes")
    calls = trace.frame("syscall")
    (nr,) = syscall_numbers(os.uname().machine, "read")
    for part in parts:
        mine = calls[
            (calls["tid"] == part.pid)
            & (calls["nr"] == nr)
            & (calls["arg0"] == part.fd)
            & calls["exit_ns"].between(part.begin_ns, part.end_ns)
        ]
        expect(f"calls of {part.count} reads", int(mine["blocks"].sum()), part.count)
        on_cpus = mine["cpu"].value_counts().to_dict()
        expect(f"calls of {part.count} reads, by CPU", on_cpus, {part.cpu: part.count})


def cpu_comes_perf(trial: Trial) -> None:
    """As :func:`cpu_comes`, by perf events: each block is told."""
    _scene(trial, "cpu-comes-perf", "--backend", "perf")


def cpu_comes_host(trial: Trial) -> None:
    """As :func:`cpu_comes_perf`, of the machine: each block is told once the CPU has its event."""
    trace = trial.folder / "cpu-comes-host.pretake"
    with _captured(trace, "--backend", "perf", "--host") as (target, record):
        parts = [target.read(record, 0, 11)]
        of_one_cpu = _perf_events(record.pid)
        _SWITCH.write_text("1")
        while _perf_events(record.pid) < 2 * of_one_cpu:
            pass
        parts.append(target.read(record, _CPU, 23))
        _SWITCH.write_text("0")
        parts.append(target.read(record, 0, 17, go=False))
    found = Trace(trace)
    _switched(found, parts)
    missing = [told.what for told in found.manifest.missing if f"CPU {_CPU}" in told.what]
    expect("what the trace says is missing of it", missing, [f"the first switches on CPU {_CPU}"])


def _perf_events(pid: int) -> int:
    """How many descriptors of them a process has; Python's mmap has one of its own."""
    count = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += "perf_event" in str(fd.readlink())
        except FileNotFoundError:
            continue
    return count


def _per_cpu_kib() -> int:
    (kib,) = re.findall(r"^Percpu:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(kib)


def _maps_bytes(pid: int) -> int:
    """What the kernel says that the maps of a process take, each map once."""
    maps: dict[str, int] = {}
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        told: dict[str, str] = {}
        for line in info.read_text().splitlines():
            name, _, value = line.partition(":")
            told[name] = value.strip()
        if "map_type" in told:
            maps[told["map_id"]] = int(told["memlock"])
    return sum(maps.values())


def many_cpus(trial: Trial) -> None:
    """A capture with one CPU and many that may come; tells what its maps take."""
    trace = trial.folder / "many.pretake"
    before_kib = _per_cpu_kib()
    with _captured(trace) as (target, record):
        parts: list[Part] = [target.read(record, 0, 11)]
        mib = _maps_bytes(record.pid) / (1 << 20)
        per_cpu_mib = (_per_cpu_kib() - before_kib) / 1024
    _switched(Trace(trace), parts)
    trial.figures |= {
        "possible CPUs": f"{possible_cpus():,}",
        "with them: maps of `pretake record`": f"{mib:.1f} MiB",
        "with them: more `Percpu` in `/proc/meminfo`": f"{per_cpu_mib:.1f} MiB",
    }
    print("   ", trial.figures, file=sys.stderr, flush=True)


def many_cpus_perf(trial: Trial) -> None:
    """By perf events: there is a ring for each CPU that may come."""
    trace = trial.folder / "many-perf.pretake"
    with _captured(trace, "--backend", "perf") as (target, record):
        expect("perf rings", _perf_rings(record.pid), possible_cpus())
        parts = [target.read(record, 0, 11)]
    found = Trace(trace)
    _switched(found, parts)
    missing = [told.what for told in found.manifest.missing if "CPU" in told.what]
    expect("what the trace says is missing of CPUs", missing, [])


def _perf_rings(pid: int) -> int:
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sum("perf_event" in line for line in maps)
