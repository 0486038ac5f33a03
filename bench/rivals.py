"""The tools that bench/capture.py compares: each attached to a running process, and taken away."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TOOLS", "Tool"]

# The latency of each system call and each time off a CPU, as a tracing tutorial writes it.
_BPFTRACE = """
tracepoint:raw_syscalls:sys_enter /pid == {pid}/ {{ @enter[tid] = nsecs; }}
tracepoint:raw_syscalls:sys_exit /@enter[tid]/ {{
    @us[args->id] = hist((nsecs - @enter[tid]) / 1000); delete(@enter[tid]);
}}
tracepoint:sched:sched_switch /pid == {pid}/ {{ @left[args->prev_pid] = nsecs; }}
tracepoint:sched:sched_switch /@left[args->next_pid]/ {{
    @off_us = hist((nsecs - @left[args->next_pid]) / 1000); delete(@left[args->next_pid]);
}}
"""


@dataclass(frozen=True)
class Tool:
    """One tool.

    Args:
        name: as the results call it.
        needs: the program that must be installed.
        command: what to run, for a process and a folder to write in; it ends by SIGINT.
        bytes_per_event: what it stored in that folder for each event; None for a tool that
            stores none.
        ready: whether it is attached, as far as the folder tells.
    """

    name: str
    needs: str
    command: Callable[[int, Path], list[str]]
    bytes_per_event: Callable[[Path], float | None] = lambda _: None
    ready: Callable[[Path], bool] = lambda _: True

    def missing(self) -> str | None:
        """Why the tool cannot be run here; None if it can."""
        return None if shutil.which(self.needs) else f"{self.needs} is not installed"

    def start(self, pid: int, folder: Path) -> subprocess.Popen[bytes]:
        """Attach it."""
        with (folder / "output").open("wb") as output:
            return subprocess.Popen(
                self.command(pid, folder), stdout=output, stderr=subprocess.STDOUT
            )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Take a tool away, as its user would by Ctrl-C."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.wait(120)


def _pretake(*more: str) -> Callable[[int, Path], list[str]]:
    def command(pid: int, folder: Path) -> list[str]:
        record = [sys.executable, "-m", "pretake", "record", "-q", *more, "--pid", str(pid)]
        return [*record, "-o", str(folder / "x.pretake")]

    return command


def _pretake_bytes(folder: Path) -> float | None:
    manifest = json.loads((folder / "x.pretake" / "manifest.json").read_text())
    told = manifest["capture"]["bytes_per_event"]
    return None if told is None else float(told)


def _pretake_ready(folder: Path) -> bool:
    return (folder / "x.pretake" / "manifest.json").exists()


def _perf_bytes(folder: Path) -> float | None:
    data = folder / "perf.data"
    told = subprocess.run(
        ["perf", "report", "--stats", "-i", str(data)], capture_output=True, text=True
    ).stdout
    counts = [line.split() for line in told.splitlines() if "SAMPLE events:" in line]
    return data.stat().st_size / int(counts[0][2]) if counts else None


TOOLS = (
    Tool("pretake", "true", _pretake(), _pretake_bytes, _pretake_ready),
    Tool(
        "exact",
        "true",
        _pretake("--probes", "exact"),
        _pretake_bytes,
        _pretake_ready,
    ),
    Tool(
        "pretake --no-stacks",
        "true",
        _pretake("--no-stacks"),
        _pretake_bytes,
        _pretake_ready,
    ),
    Tool(
        "pretake --runtime none",
        "true",
        _pretake("--runtime", "none"),
        _pretake_bytes,
        _pretake_ready,
    ),
    Tool(
        "perf sched record",
        "perf",
        lambda _, folder: ["perf", "sched", "record", "-o", str(folder / "perf.data")],
        _perf_bytes,
    ),
    Tool(
        "perf trace -s",
        "perf",
        lambda pid, folder: [
            *("perf", "trace", "-s", "-p", str(pid), "-o", str(folder / "summary"))
        ],
    ),
    Tool("bpftrace", "bpftrace", lambda pid, _: ["bpftrace", "-e", _BPFTRACE.format(pid=pid)]),
    Tool("strace -c", "strace", lambda pid, _: ["strace", "-f", "-c", "-p", str(pid)]),
)
"""What is compared, pretake first."""
