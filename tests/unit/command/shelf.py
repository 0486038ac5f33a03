"""A shelf of odd traces: what every view has to answer for, or refuse in one line.

Each is a function that writes one trace into a folder; :data:`SHELF` names them all. To add
one, write a function and put it there: every test of the views takes it from the shelf.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from tests.unit.analysis.scene import US, Scene
from tests.unit.analysis.test_episodes import CALM, retaken
from tests.unit.analysis.test_summary import ten_calls
from tests.unit.manifests import change_manifest
from tracer.trace.schema import TABLES

__all__ = ["GO", "HOSTILE", "SHELF", "busy_server"]

GO = {"path": "/srv/app", "runtime": "go", "version": "go1.25.5", "p_in_syscall": "psyscall"}
HOSTILE = "\x1b[2J[red]</td><script>alert(1)</script>\n;\udcff\u202e\x00"
"""Steers a terminal, is markup to rich, HTML to a browser, and a separator in folded stacks."""
_MOST = 2**63 - 1


def busy_server(calls: int = 120, **manifest: object) -> Scene:
    """Calls enough for a replay: two goroutines read in turn, and sysmon retakes each time."""
    scene = Scene(end_ns=(calls + 2) * 1_000 * US, **{"target": GO, **manifest})
    for tid, comm in ((11, "reader"), (12, "worker"), (19, "sysmon")):
        scene.task(tid, 7, comm)
    for call in range(calls):
        at, tid = 1_000 * call, 11 + call % 2
        busy = {"runq": 1 + call % 3, "global_runq": 0, "npidle": 0, "nmspinning": 0}
        scene.block(at + 100, tid, at + 90, 0, stack_id=call % 2, **busy)
        scene.switch(at + 101, tid, 0)
        scene.runtime(at + 150 + call % 7, "retake", 19, 0, reason="sysmon", target_tid=tid)
        scene.runtime(at + 160, "handoff", 19, 0, reason="sysmon")
        scene.switch(at + 170, 0, 23 - tid)
        scene.runtime(at + 175, "run", 23 - tid, 0, goid=(23 - tid) * 10)
        scene.wakeup(at + 480, tid)
        scene.exit(at + 500, tid, at + 90, ret=1, blocks=1, blocked_ns=390 * US)
    for stack_id, function in enumerate(("main.read", "main.poll")):
        scene.rows["stack"].append({"stack_id": stack_id, "pid": 7, "pc": stack_id, "depth": 0})
        scene.rows["address"].append(
            {"pid": 7, "pc": stack_id, "function": function, "file": "/src/main.go", "line": 34}
        )
    return scene


def _empty(folder: Path) -> Path:
    scene = Scene()
    scene.manifest.pop("begin_ns")
    return scene.write(folder).path


def _no_episode(folder: Path) -> Path:
    scene = Scene(end_ns=1_000 * US, target=GO)
    scene.task(11, 7)
    scene.switch(10, 11, 0)
    scene.switch(20, 0, 11)
    return scene.write(folder).path


def _one_episode(folder: Path) -> Path:
    scene = Scene(end_ns=1_000 * US, target=GO)
    retaken(scene)
    return scene.write(folder).path


def _nothing_wrong(folder: Path) -> Path:
    scene = Scene(end_ns=1_000 * US, target=GO)
    retaken(scene, **CALM)
    return scene.write(folder).path


def _busy(folder: Path) -> Path:
    return busy_server().write(folder).path


def _unknown_policy(folder: Path) -> Path:
    """Of the reference runtime, which told no policy: a replay of it has no error to tell."""
    target = {"runtime": "reference", "version": "0.1.0"}
    return busy_server(target=target, workload={"name": "echo", "procs": 2}).write(folder).path


def _unknown_latency(folder: Path) -> Path:
    """Calls that blocked with a P, of which nobody told how it went on."""
    scene = Scene(end_ns=100_000 * US, target=GO)
    for call in range(60):
        at = 1_000 * call
        scene.block(at + 100, 11, at + 90, 0)
        scene.exit(at + 500, 11, at + 90, blocked_ns=390 * US)
        scene.runtime(at + 501, "exit_slow", 11)
    return scene.write(folder).path


def _no_runtime(folder: Path) -> Path:
    scene = Scene(end_ns=1_000 * US, target={"path": "/bin/sleep"})
    scene.task(11, 7)
    scene.switch(10, 11, 0)
    scene.exit(400, 11, 9, blocked_ns=300 * US)
    return scene.write(folder).path


def _perf_only(folder: Path) -> Path:
    lacks = [{"what": "block, syscall, runtime", "why": "perf tells switches only"}]
    scene = Scene(end_ns=1_000 * US, backend="perf", missing=lacks)
    for at in range(10, 500, 20):
        scene.rows["sched_switch"].append({"ts_ns": at * US, "prev_tid": 11})
        scene.rows["sched_switch"].append({"ts_ns": (at + 7) * US, "next_tid": 11})
    return scene.write(folder).path


def _two_processes(folder: Path) -> Path:
    scene = Scene(end_ns=20_000 * US, target=GO)
    for pid, tid in ((7, 11), (8, 21)):
        scene.task(tid, pid, f"server{pid}")
        for call in range(30):
            at = 500 * call + pid
            scene.block(at + 100, tid, at + 90, 0, runq=1, global_runq=0, npidle=0, nmspinning=0)
            scene.runtime(at + 120, "handoff", tid + 1, 0, reason="syscall_block")
            scene.runtime(at + 130, "run", tid + 1, 0)
            scene.exit(at + 200, tid, at + 90, blocked_ns=100 * US)
    return scene.write(folder).path


def _losses_everywhere(folder: Path) -> Path:
    tables = [name for name, table in TABLES.items() if table.ring]
    losing = [name for name in tables if name in TABLES["loss"].column("table").words]
    scene = busy_server(lost=dict.fromkeys(losing, 3), sent={})
    for name in losing:
        scene.loss(0, 200_000, name, 3)
    return scene.write(folder).path


def _no_time(folder: Path) -> Path:
    """All that happened, happened at once."""
    scene = Scene(end_ns=0, target=GO, capture={"wall_s": 0.0, "cpu_s": 0.0})
    for tid in range(11, 71):
        scene.block(0, tid, 0, 0, runq=1, global_runq=0, npidle=0, nmspinning=0)
        scene.runtime(0, "retake", 19, 0, reason="sysmon", target_tid=tid)
        scene.runtime(0, "run", 12, 0)
        scene.exit(0, tid, 0)
    return scene.write(folder).path


def _another_architecture(folder: Path) -> Path:
    """Call 63 is ``read`` on arm64 (and ``uname`` on x86-64), call 7 is one on neither's desk."""
    scene = Scene(end_ns=20_000 * US, target=GO, arch="aarch64", kernel="6.1.0 aarch64")
    for call in range(10):
        at = 1_000 * call
        scene.block(at + 100, 11, at + 90, 0, nr=63, **CALM)
        scene.exit(at + 300, 11, at + 90, nr=63)
    return scene.write(folder).path


def _first_version(folder: Path) -> Path:
    """Its parts have the columns that there were then."""
    path = ten_calls(target=GO).write(folder).path
    for name, table in TABLES.items():
        then = [column.name for column in table.columns if column.since == 1]
        for part in (path / name).glob("*.parquet"):
            pq.write_table(pq.read_table(part).select(then), part)
    change_manifest(path, schema_version=1)
    return path


def _killed(folder: Path) -> Path:
    """A capture that was killed: no end, no cost, and its rows are all that there is."""
    path = busy_server().write(folder).path
    change_manifest(path, complete=False, end_ns=None, capture={}, events={}, error="killed")
    return path


def _cut_short(folder: Path) -> Path:
    path = busy_server().write(folder).path
    part = path / "block" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    return path


def _damaged(folder: Path) -> Path:
    """A part whose first page is noise: it opens, and cannot be read."""
    path = busy_server().write(folder).path
    part = path / "block" / "part-00000.parquet"
    whole = bytearray(part.read_bytes())
    whole[4:200] = bytes(196)
    part.write_bytes(bytes(whole))
    return path


def _no_trace(folder: Path) -> Path:
    path = folder / "nothing"
    path.mkdir()
    return path


def _odd_manifest(folder: Path) -> Path:
    """Every field has its type, and none makes sense."""
    strange = {
        "policy": ["a"],
        "procs": -3,
        "name": 7,
        "round_trip_ns": {"p50": 1e308, "p99": "x"},
    }
    return (
        busy_server(
            workload=strange,
            capture={"wall_s": -1.0, "cpu_s": 1e308, "bytes": -5, "bytes_per_event": 1e-300},
            lost={"block": -2, "no such table": 2**60},
            suspended_ns=-(2**62),
            command=["", HOSTILE],
            pid=-1,
            arch="",
            backend="",
            begin_boot_ns=-5,
            asked={"detail": 3},
            missing=[{"what": "", "why": ""}],
        )
        .write(folder)
        .path
    )


def _out_of_range(folder: Path) -> Path:
    path = busy_server().write(folder).path
    change_manifest(path, lost={"block": 2**70})
    return path


def _not_finite(folder: Path) -> Path:
    """Python's JSON reads numbers that are none."""
    path = busy_server().write(folder).path
    text = (path / "manifest.json").read_text()
    cost = '"capture": {"wall_s": NaN, "cpu_s": Infinity, "bytes_per_event": -Infinity}'
    made = json.loads(text)
    made.pop("capture")
    trips = '"workload": {"round_trip_ns": {"p50": NaN, "p90": Infinity}, "procs": NaN}'
    made.pop("workload")
    body = json.dumps(made)
    (path / "manifest.json").write_text(f"{body[:-1]}, {cost}, {trips}}}")
    return path


def _backwards(folder: Path) -> Path:
    """It ended before it began, by its manifest."""
    path = busy_server().write(folder).path
    change_manifest(path, begin_ns=5_000 * US, end_ns=1_000 * US)
    return path


def _huge(folder: Path) -> Path:
    """Numbers at the ends of their columns, whose sums have none; a capture of 290 years."""
    scene = Scene(end_ns=_MOST, target=GO, lost={"block": _MOST, "task": _MOST})
    for tid, p in ((2**31 - 1, 2**31 - 1), (11, 0)):
        scene.task(tid, 2**31 - 1)
        wide = {"goid": _MOST, "arg0": -_MOST, "m": 2**31 - 1, "nr": 2**15 - 1, "cpu": 2**15 - 1}
        full = dict.fromkeys(("runq", "global_runq", "npidle", "nmspinning"), 2**31 - 1)
        scene.block(100, tid, 90, p, **wide, **full)
        scene.rows["runtime"].append(
            {"ts_ns": _MOST - 5, "kind": "retake", "tid": 19, "p": p, "target_tid": tid}
        )
        scene.rows["syscall"].append(
            {"enter_ns": 90 * US, "exit_ns": _MOST - 1, "tid": tid, "ret": -_MOST, "nr": 2**15 - 1}
        )
    return scene.write(folder).path


def _hostile_names(folder: Path) -> Path:
    scene = busy_server(
        command=[HOSTILE],
        host=HOSTILE,
        kernel=HOSTILE,
        target={**GO, "path": HOSTILE, "version": HOSTILE},
        workload={"policy": HOSTILE, "name": HOSTILE},
        missing=[{"what": HOSTILE, "why": HOSTILE}],
        error=HOSTILE,
    )
    for row in scene.rows["task"]:
        row["comm"] = _storable_text(HOSTILE)[:15]
    for row in scene.rows["address"]:
        row["function"] = row["file"] = _storable_text(HOSTILE)
    return scene.write(folder, "[bold]<img src=x>\x1b[2J.pretake").path


def _storable_text(name: str) -> str:
    """As the tracer stores what is no UTF-8."""
    return name.encode("utf-8", "replace").decode()


def _preempted(folder: Path) -> Path:
    """Requests to stop a goroutine: obeyed, refused, and never answered."""
    scene = busy_server()
    for at, end, how in ((125_000, "preempted", "async"), (126_000, "preempt_refused", None)):
        scene.runtime(at, "preempt_request", 19, 0, target_tid=11, reason="time_slice", goid=110)
        scene.signal(at + 5, "tgkill", 11, sender_tid=19)
        scene.signal(at + 20, "deliver", 11, interrupted_nr=0)
        scene.runtime(at + 40, end, 11, 0, goid=110, reason=how)
    scene.runtime(127_000, "preempt_request", 19, 0, target_tid=11)
    scene.manifest["end_ns"] = 128_000 * US
    return scene.write(folder).path


SHELF: Mapping[str, Callable[[Path], Path]] = {
    maker.__name__.removeprefix("_"): maker
    for maker in (
        _empty,
        _no_episode,
        _one_episode,
        _nothing_wrong,
        _busy,
        _preempted,
        _unknown_policy,
        _unknown_latency,
        _no_runtime,
        _perf_only,
        _two_processes,
        _losses_everywhere,
        _no_time,
        _another_architecture,
        _first_version,
        _killed,
        _cut_short,
        _damaged,
        _no_trace,
        _odd_manifest,
        _out_of_range,
        _not_finite,
        _backwards,
        _huge,
        _hostile_names,
    )
}
"""What writes each trace, by its name: given an empty folder, returns the trace's path."""
