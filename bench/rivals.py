"""The tools that bench/capture.py compares: each attached to a running process, and taken away.

A tool that cannot be measured takes no other one with it: see :func:`in_turns`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

__all__ = ["TOOLS", "Costs", "Tool", "ToolFailedError", "attached", "in_turns"]

_ATTACH_S = 120.0
_AFTER_PROGRAM_S = 10.0
_AFTER_KILL_S = 60.0

Program = TypeVar("Program")

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
        settle_s: time for it to compile, load and attach.
        end_s: how long it may take to end after Ctrl-C.
    """

    name: str
    needs: str
    command: Callable[[int, Path], list[str]]
    bytes_per_event: Callable[[Path], float | None] = lambda _: None
    ready: Callable[[Path], bool] = lambda _: True
    settle_s: float = 2.0
    end_s: float = 120.0

    def missing(self) -> str | None:
        """Why the tool cannot be run here; None if it can."""
        return None if shutil.which(self.needs) else f"{self.needs} is not installed"

    def start(self, pid: int, folder: Path) -> subprocess.Popen[bytes]:
        """Attach it."""
        with (folder / "output").open("wb") as output:
            return subprocess.Popen(
                self.command(pid, folder), stdout=output, stderr=subprocess.STDOUT
            )


@dataclass
class Costs:
    """Of one tool on one program, for each round.

    Args:
        ratios: time of a round trip or answer with the tool, by that without.
        cpu_ratios: of its CPU time.
        bytes_per_event: that the tool stored.
        failed: why the tool could not be measured in all rounds; None if it could.
    """

    ratios: list[float] = field(default_factory=list)
    cpu_ratios: list[float] = field(default_factory=list)
    bytes_per_event: list[float] = field(default_factory=list)
    failed: str | None = None

    def figure(self, of: Sequence[float]) -> float | None:
        """The median of the rounds; None if the tool failed in one."""
        return statistics.median(of) if of and self.failed is None else None


class ToolFailedError(Exception):
    """A tool could not be measured; says why.

    Args:
        why: as its row tells it.
        process: what is left of it, if it has not ended.
    """

    def __init__(self, why: str, process: subprocess.Popen[bytes] | None = None) -> None:
        super().__init__(why)
        self.process = process

    def end(self) -> None:
        """End what is left of the tool, after the program that it was attached to has ended.

        A tool that waits in the kernel until no thread can be inside its probes (docs/capture.md)
        is not ended by SIGKILL, but by the end of the program.
        """
        if self.process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_AFTER_PROGRAM_S)
            return
        self.process.kill()
        try:
            self.process.wait(_AFTER_KILL_S)
        except subprocess.TimeoutExpired:
            self.args = (f"{self}; nor by SIGKILL: process {self.process.pid} is left",)


@contextlib.contextmanager
def attached(tool: Tool, pid: int, place: Path) -> Iterator[Path]:
    """A tool, attached for as long as this lasts.

    Args:
        tool: which.
        pid: to what.
        place: where to make the folder that it writes into.

    Yields:
        That folder, which stays.

    Raises:
        ToolFailedError: it did not attach, or did not end.
    """
    folder = Path(tempfile.mkdtemp(dir=place))
    process = tool.start(pid, folder)
    try:
        _wait_for(tool, process, folder)
        yield folder
        _stop(tool, process)
    except ToolFailedError as error:
        if error.process is None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            error.process = process
        raise
    except BaseException:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_AFTER_KILL_S)
        raise


def _wait_for(tool: Tool, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until a tool has attached."""
    time.sleep(tool.settle_s)
    end_s = time.monotonic() + _ATTACH_S
    while process.poll() is None and not tool.ready(folder):
        if time.monotonic() > end_s:
            raise ToolFailedError(f"did not attach within {_ATTACH_S:g} s")
        time.sleep(0.1)
    if process.poll() is not None:
        lines = (folder / "output").read_text(errors="replace").splitlines()
        said = "; ".join([line.strip() for line in lines if line.strip()][-3:])
        raise ToolFailedError(f"ended by itself: {said or f'status {process.returncode}'}")


def _stop(tool: Tool, process: subprocess.Popen[bytes]) -> None:
    """Take a tool away, as its user would by Ctrl-C."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(tool.end_s)
    except subprocess.TimeoutExpired:
        why = f"did not end within {tool.end_s:g} s of Ctrl-C"
        raise ToolFailedError(why, process) from None


def in_turns(
    program: Callable[[], AbstractContextManager[Program]],
    tools: Sequence[Tool],
    rounds: int,
    measure: Callable[[Program, Tool], None],
) -> dict[str, str]:
    """Measure each tool in turn on one running program, for some rounds.

    A tool that fails is left out of the rounds that follow, and they are of a new program: the old
    one ends, because it is what a tool that does not end waits for.

    Args:
        program: runs it for as long as the context lasts.
        tools: in which order.
        rounds: how often.
        measure: one tool, once, on the running program.

    Returns:
        Why, for each tool that failed.
    """
    failed: dict[str, str] = {}
    left = [tool for _ in range(rounds) for tool in tools]
    while left:
        error = None
        with program() as running:
            while left and error is None:
                tool = left.pop(0)
                try:
                    measure(running, tool)
                except ToolFailedError as failure:
                    error = failure
        if error is not None:
            error.end()
            failed[tool.name] = str(error)
            print(f"  {tool.name}: failed: {error}", flush=True)
            left = [each for each in left if each.name not in failed]
    return failed


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
