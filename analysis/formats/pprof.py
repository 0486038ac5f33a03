"""P time as a pprof profile: what was lost, on the stacks of the calls that it was lost to.

    pretake export server.pretake --pprof server.pb.gz
    go tool pprof -http=:8080 server.pb.gz
    go tool pprof -sample_index=hold -top server.pb.gz

Example: 30 reads at ``main.go:54`` held their P for 90 ms in all, and for 60 ms of these a
goroutine waited that no other P could run. That is one sample with that stack: holds 30, hold
90 ms, harm 60 ms, lost_p 60 ms.

Rule: each hold of the budget (:mod:`analysis.ptime.budget`) counts on its own stack, so sums over
a profile are those of the budget. Exception: P time that no call or page fault lost, such as that
of a thread which was preempted by the kernel, has no stack; it counts on a frame that says so.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.budget import LOST_STATES
from analysis.answers.where import Placed, frames_of
from analysis.formats.export import whole_file
from analysis.formats.profile_proto import Profile
from analysis.names import syscall_names
from analysis.ptime.budget import Pass, run_pass
from analysis.ptime.engine.state import STATES
from analysis.ptime.episodes import episode_windows
from analysis.windowed.columns import read
from tracer.trace.containers import NOWHERE
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["LABELS", "SAMPLE_TYPES", "write_pprof"]

SAMPLE_TYPES = (
    ("holds", "count", "calls and page faults in which a thread kept its P blocked"),
    ("hold", "nanoseconds", "how long they kept it"),
    ("harm", "nanoseconds", "system calls' share of lost P time, at least"),
    ("lost_p", "nanoseconds", "lost P time of every cause, at least"),
    ("fault", "nanoseconds", "blocked in page faults"),
    ("no_cpu", "nanoseconds", "P's thread could run, and had no CPU"),
)
"""Name, unit and meaning of each value of a sample; the default one is lost_p."""

LABELS = ("process", "pid", "container", "pod", "cause", "syscall", "taker")
"""Labels of a sample. ``cause`` is the state of the budget; ``taker`` why P was taken or given
away (a reason of table runtime), ``kept`` where it was not."""

_KEYS = ["pid", "stack_id", "state", "nr", "taker"]
_VALUES = ["holds", "hold", "harm", "lost_p", "fault", "no_cpu"]
_SYSCALL, _FAULT = STATES.index("syscall"), STATES.index("fault")
_ENDS = ("kept", "unknown", "unknown")


def write_pprof(trace: Trace, path: str | Path) -> int:
    """Write a trace's holds as a gzipped pprof profile, as a whole or not at all.

    Returns:
        How many samples it has.

    Raises:
        PretakeError: the trace cannot be read, or the file cannot be written.
    """
    takers = _takers(trace)
    pieces: list[pd.DataFrame] = []
    found = run_pass(trace, on_holds=lambda holds: pieces.append(_sums(holds, takers)))
    held = pd.concat(pieces, ignore_index=True).groupby(_KEYS, as_index=False).sum()
    profile = _Profile(trace, found)
    profile.add_holds(held, frames_of(trace, set(held["stack_id"].tolist()) - {UNKNOWN}))
    profile.add_rest(held)
    with whole_file(Path(path)) as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as out:
        out.write(profile.message.SerializeToString(deterministic=True))
    return len(profile.message.sample)


def _takers(trace: Trace) -> pd.Series[Any]:
    """Why P was taken, by thread and time of the block; only where it is known."""
    names = ("tid", "block_ns", "reason")
    pieces = [
        piece.loc[piece["reason"].notna(), [*names]].astype({"reason": str})
        for piece in episode_windows(trace, columns=names)
    ]
    rows = pd.concat(pieces) if pieces else pd.DataFrame(columns=[*names])
    return rows.drop_duplicates(["tid", "block_ns"]).set_index(["tid", "block_ns"])["reason"]


def _sums(holds: Mapping[str, np.ndarray], takers: pd.Series[Any]) -> pd.DataFrame:
    """What one window's holds add to each sample."""
    rows = pd.DataFrame({name: np.asarray(values) for name, values in holds.items()})
    block = pd.MultiIndex.from_frame(rows[["tid", "block_ns"]])
    ends = pd.Series(_ENDS).reindex(rows["end"]).to_numpy(object)
    told = takers.reindex(block).to_numpy(object)
    lost = rows["least_ns"] + rows["awake_least_ns"]
    return (
        rows[["pid", "stack_id", "state", "nr"]]
        .assign(
            taker=np.where(pd.isna(told), ends, told),
            holds=1,
            hold=rows["end_ns"] - rows["block_ns"],
            harm=lost.where(rows["state"] == _SYSCALL, 0),
            lost_p=lost,
            fault=rows["blocked_ns"].where(rows["state"] == _FAULT, 0),
            no_cpu=rows["awake_ns"],
            # Of what the budget has as the state that the thread blocked in.
            of_state=rows["least_ns"],
            of_no_cpu=rows["awake_least_ns"],
        )
        .groupby(_KEYS, as_index=False)
        .sum()
    )


@dataclass(frozen=True)
class _Program:
    path: str | None
    build_id: str | None


class _Profile:
    """A profile that is being made; every name and place is in it once."""

    def __init__(self, trace: Trace, found: Pass) -> None:
        self.message = Profile()
        self._strings: dict[str, int] = {}
        self._functions: dict[tuple[str, str], int] = {}
        self._locations: dict[object, int] = {}
        self._mappings: dict[_Program, Any] = {}
        self._programs = _programs(trace)
        self._machine = trace.manifest.arch
        self._found = found
        self._string("")
        for name, unit, _ in SAMPLE_TYPES:
            self.message.sample_type.add(type=self._string(name), unit=self._string(unit))
        self.message.default_sample_type = self._string("lost_p")
        setting = found.setting
        self.message.duration_nanos = max(setting.end_ns - setting.begin_ns, 0)

    def add_holds(self, held: pd.DataFrame, frames: Mapping[int, list[Placed]]) -> None:
        """One sample for each stack, process, cause, system call and taker."""
        names = syscall_names(held["nr"].to_numpy(np.int64), self._machine)
        rows = _rows(held, ("pid", "stack_id", "state", "taker", *_VALUES))
        for (pid, stack_id, state, taker, *values), call in zip(rows, names, strict=True):
            places = [self._place(placed) for placed in frames.get(stack_id, [])]
            places = places or [self._words("(no stack)")]
            # The system call itself is the innermost frame, as it is in a profile of the kernel.
            if call is not None:
                places.insert(0, self._words(f"({call})"))
            labels = {"cause": STATES[state], "syscall": call, "taker": taker}
            self._sample(pid, places, values, labels)

    def add_rest(self, held: pd.DataFrame) -> None:
        """What no hold of a process lost: its P time in each state, less what was told above."""
        told: Counter[tuple[int, str]] = Counter()
        names = ("pid", "state", "of_state", "of_no_cpu", "no_cpu")
        waited: Counter[int] = Counter()
        for pid, state, ns, awake_ns, no_cpu_ns in _rows(held, names):
            told[pid, STATES[state]] += ns
            told[pid, "no_cpu"] += awake_ns
            waited[pid] += no_cpu_ns
        for process in self._found.processes:
            for state in LOST_STATES:
                lost_ns = process.lost_least[state] - told[process.pid, state]
                wait_ns = process.states[state] - waited[process.pid] if state == "no_cpu" else 0
                # A share is cut to a ns in each hold.
                if lost_ns > len(held) or wait_ns > 0:
                    place = self._words(f"(P in state {state}, in no call)")
                    values = [0, 0, 0, max(lost_ns, 0), 0, max(wait_ns, 0)]
                    self._sample(process.pid, [place], values, {"cause": state})

    def _sample(
        self, pid: int, places: list[int], values: list[int], labels: Mapping[str, str | None]
    ) -> None:
        sample = self.message.sample.add(location_id=places, value=[int(v) for v in values])
        setting = self._found.setting
        place = setting.places.get(pid, NOWHERE)
        where = {"container": place.container, "pod": place.pod}
        words = {"process": setting.comms.get(pid), **where, **labels}
        for key, word in words.items():
            if word is not None:
                sample.label.add(key=self._string(key), str=self._string(word))
        sample.label.add(key=self._string("pid"), num=pid)

    def _place(self, placed: Placed) -> int:
        address, site = placed
        if address not in self._locations:
            program = self._programs.get((address.pid, address.generation))
            name = site.function or f"0x{address.pc & (1 << 64) - 1:x}"
            self._locations[address] = len(self._locations) + 1
            location = self.message.location.add(id=self._locations[address])
            location.address = address.pc & (1 << 64) - 1
            if program is not None:
                location.mapping_id = self._mapping(program, location.address)
            location.line.add(function_id=self._function(name, site.file), line=site.line or 0)
        return self._locations[address]

    def _words(self, name: str) -> int:
        """A place that is no address of a program."""
        if name not in self._locations:
            self._locations[name] = len(self._locations) + 1
            location = self.message.location.add(id=self._locations[name])
            location.line.add(function_id=self._function(name, None))
        return self._locations[name]

    def _mapping(self, program: _Program, address: int) -> int:
        if program not in self._mappings:
            made = self.message.mapping.add(
                id=len(self._mappings) + 1,
                memory_start=address,
                memory_limit=address + 1,
                filename=self._string(program.path or ""),
                build_id=self._string(program.build_id or ""),
                has_functions=True,
                has_filenames=True,
                has_line_numbers=True,
            )
            self._mappings[program] = made
        mapping = self._mappings[program]
        mapping.memory_start = min(mapping.memory_start, address)
        mapping.memory_limit = max(mapping.memory_limit, address + 1)
        return int(mapping.id)

    def _function(self, name: str, file: str | None) -> int:
        key = (name, file or "")
        if key not in self._functions:
            self._functions[key] = len(self._functions) + 1
            self.message.function.add(
                id=self._functions[key],
                name=self._string(name),
                system_name=self._string(name),
                filename=self._string(file or ""),
            )
        return self._functions[key]

    def _string(self, word: str) -> int:
        if word not in self._strings:
            self._strings[word] = len(self._strings)
            self.message.string_table.append(word)
        return self._strings[word]


def _rows(held: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return zip(*(held[name].tolist() for name in names), strict=True)


def _programs(trace: Trace) -> dict[tuple[int, int], _Program]:
    """The programs of each process, by its number and generation."""
    names = ("pid", "generation", "path", "build_id")
    rows = read(trace, "reach", names)
    columns = zip(*(rows[name].tolist() for name in names), strict=True)
    return {
        (pid, generation): _Program(path, build_id) for pid, generation, path, build_id in columns
    }
