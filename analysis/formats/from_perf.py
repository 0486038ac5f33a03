"""What ``perf sched record`` recorded, as a trace of this project, as far as it reaches.

perf records switches, wake-ups and threads, and nothing of a runtime. So there are no episodes,
but the trace shows where threads ran and waited, as any trace does. Times are of perf's own clock.
The input is a ``perf.data`` file, which perf itself reads, or the text of ``perf script``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

from tracer.errors import PretakeError
from tracer.trace.made_trace import write_trace
from tracer.trace.reader import Trace

__all__ = ["PERF_FIELDS", "import_perf", "is_perf_data", "perf_tables"]

PERF_FIELDS = ("--ns", "-F", "comm,pid,tid,cpu,time,event,trace")
"""Arguments of ``perf script`` for the text that tells the most."""

_MAGIC = b"PERFILE2"
_LINE = re.compile(
    r"^\s*(?P<comm>.+?)\s+(?:(?P<pid>-?\d+)/)?(?P<tid>-?\d+)\s+\[(?P<cpu>\d+)\]\s+"
    r"(?P<s>\d+)\.(?P<part>\d{6,9}):\s+(?:\d+\s+)?sched:(?P<event>\w+):\s+(?P<what>.*)$"
)
_SWITCH = re.compile(
    r"prev_comm=(?P<prev_comm>.*) prev_pid=(?P<prev>\d+) prev_prio=-?\d+ "
    r"prev_state=(?P<state>\S+) ==> next_comm=(?P<next_comm>.*) next_pid=(?P<next>\d+) "
)
_WAKEUP = re.compile(r"comm=(?P<comm>.*) pid=(?P<tid>\d+) prio=-?\d+.* target_cpu=(?P<cpu>\d+)")
_FORK = re.compile(r"comm=(?P<comm>.*) pid=(?P<tid>\d+) child_comm=.* child_pid=(?P<child>\d+)")
_NAMED = re.compile(r"(?:comm|filename)=(?P<comm>.*) pid=(?P<tid>\d+)")
_TASK_KINDS = {"sched_process_exec": "exec", "sched_process_exit": "exit"}

Tables = dict[str, dict[str, list[Any]]]


def is_perf_data(path: Path) -> bool:
    """Whether a file begins as perf's own format does."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def import_perf(path: Path, out: Path) -> Trace:
    """Write what perf recorded as a trace.

    Args:
        path: a ``perf.data`` file, or the text of ``perf script``.
        out: the folder to make.

    Raises:
        PretakeError: no line in it tells of the scheduler, perf is not there to read its file, or
            ``out`` exists.
    """
    text = _script(path) if is_perf_data(path) else path.read_text("utf-8", "replace")
    tables = perf_tables(text)
    times = [ts for rows in tables.values() for ts in rows["ts_ns"]]
    if not times:
        raise PretakeError(
            f"{path} has no line of perf's scheduler events",
            f"write it with 'perf script {' '.join(PERF_FIELDS)}' after 'perf sched record'",
        )
    return write_trace(
        out,
        tables,
        {
            "backend": "import",
            "clock": "perf",
            "begin_ns": min(times),
            "end_ns": max(times),
            "attached": ["perf sched record"],
            "missing": [
                {"what": what, "why": "perf sched does not tell of them"}
                for what in ("P, M and G", "system calls", "signals")
            ],
        },
    )


def perf_tables(text: str) -> Tables:
    """The tables that the text of ``perf script`` holds; other lines are passed over."""
    tables: defaultdict[str, defaultdict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    processes: dict[int, int] = {}
    names: dict[int, tuple[int, str]] = {}
    # Newer kernels tell each wake-up twice: once when it is decided, once when it is done.
    wakes = ("sched_waking",) if "sched:sched_waking:" in text else ("sched_wakeup",)
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        at = int(found["s"]) * 1_000_000_000 + int(found["part"].ljust(9, "0"))
        event, what, cpu = found["event"], found["what"] + " ", int(found["cpu"])
        if found["pid"] is not None and int(found["tid"]) > 0:
            processes[int(found["tid"])] = int(found["pid"])
        if event == "sched_switch" and (switch := _SWITCH.match(what)):
            previous, following = int(switch["prev"]), int(switch["next"])
            state = _state(switch["state"])
            _add(tables["sched_switch"], ts_ns=at, prev_tid=previous, next_tid=following,
                 cpu=cpu, prev_state=state)  # fmt: skip
            for tid, comm in ((previous, switch["prev_comm"]), (following, switch["next_comm"])):
                names.setdefault(tid, (at, comm))
        elif event in (*wakes, "sched_wakeup_new") and (wakeup := _WAKEUP.match(what)):
            waker = int(found["tid"])
            _add(tables["sched_wakeup"], ts_ns=at, tid=int(wakeup["tid"]),
                 waker_tid=waker if waker >= 0 else None, cpu=cpu, target_cpu=int(wakeup["cpu"]),
                 kind="new" if event.endswith("new") else "wakeup")  # fmt: skip
        elif event == "sched_process_fork" and (fork := _FORK.match(what)):
            child, parent = int(fork["child"]), int(fork["tid"])
            names[child] = (-1, fork["comm"])
            _add(tables["task"], ts_ns=at, tid=child, pid=child, parent_tid=parent,
                 comm=fork["comm"], kind="fork")  # fmt: skip
        elif event in _TASK_KINDS and (named := _NAMED.match(what)):
            tid = int(named["tid"])
            comm = named["comm"].rsplit("/", 1)[-1][:15]
            _add(tables["task"], ts_ns=at, tid=tid, pid=tid, parent_tid=None, comm=comm,
                 kind=_TASK_KINDS[event])  # fmt: skip
    for tid, (at, comm) in names.items():
        if tid > 0 and at >= 0:
            _add(tables["task"], ts_ns=at, tid=tid, pid=tid, parent_tid=None, comm=comm,
                 kind="present")  # fmt: skip
    task = tables.get("task")
    if task is not None:
        # A thread's process is told by a line that it ran in, which may come after its birth.
        task["pid"] = [processes.get(tid, tid) for tid in task["tid"]]
    return {name: dict(rows) for name, rows in tables.items()}


def _state(letters: str) -> str:
    if letters.startswith("R"):
        return "preempted"
    return "dead" if letters[0] in "XZ" else "blocked"


def _add(rows: dict[str, list[Any]], **values: object) -> None:
    for name, value in values.items():
        rows[name].append(value)


def _script(path: Path) -> str:
    perf = shutil.which("perf")
    if perf is None:
        raise PretakeError(
            f"reading {path} needs perf, which is not installed",
            f"write 'perf script {' '.join(PERF_FIELDS)}' to a file where it is, and import that",
        )
    done = subprocess.run(
        [perf, "script", "-i", str(path.resolve()), *PERF_FIELDS],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["no reason told"])[-1]
        raise PretakeError(f"perf cannot read {path} ({told})", "record it again")
    return done.stdout
