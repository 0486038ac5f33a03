"""A program that the BPF programs watch while the test talks with it, without a trace on disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Container, Sequence
from pathlib import Path
from types import TracebackType

import pandas as pd

from tracer.capture.programs import Programs
from tracer.trace.schema import TABLES

__all__ = ["Watched", "wait_in_call"]


def wait_in_call(pid: int, nr: int, tid: int | None = None) -> None:
    """Until a thread sleeps in the kernel in system call ``nr`` (-1: in none, as in a fault)."""
    folder = Path(f"/proc/{pid}/task/{tid or pid}")
    while not (
        (folder / "syscall").read_text().split()[0] == str(nr)
        and (folder / "stat").read_text().rpartition(")")[2].split()[0] in "SD"
    ):
        os.sched_yield()


class Watched:
    """A program, captured from its first instruction to its end, which ``with`` waits for.

    Args:
        argv: what is run; its input and output are pipes to the test.
        defines: what the BPF programs are compiled with.
        programs: some that are loaded already, in place of those.
        leave_out: tracepoints to go without.

    Attributes:
        pid: its process.
        tables: what the rings hold at its end, by table.
    """

    def __init__(
        self,
        argv: Sequence[str],
        defines: Sequence[str] = ("DETAIL_FULL",),
        programs: Programs | None = None,
        leave_out: Container[str] = (),
    ) -> None:
        self.programs = programs or Programs(8 << 20, defines=dict.fromkeys(defines, 1))
        self._own = programs is None
        self.tables: dict[str, pd.DataFrame] = {}
        self.process = subprocess.Popen(
            ["sh", "-c", 'read gate; exec "$@"', "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.programs.probes.attach(leave_out)
        self.programs.followed.follow(self.pid, before_exec=True)
        self.say()

    def say(self, line: str = "") -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __enter__(self) -> Watched:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.process.kill()
        self.process.communicate()
        self.programs.detach()
        for name, ring in self.programs.rings.rings.items():
            self.tables[name] = TABLES[name].to_arrow(ring.peek().copy()).to_pandas()
            ring.release()
        if self._own:
            self.programs.close()
        if error is None:
            assert self.process.returncode == 0
