"""A number of blocking calls that is known exactly, for tests that count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reference_runtime.goroutines import (
    BLOCK,
    RAW,
    Site,
    current_host,
    getm,
    go,
    gosched,
    read,
    write,
)
from reference_runtime.workloads.base import Result, Workload
from tracer.errors import PretakeError

READ = Site("prime.read", BLOCK)
WRITE = Site("prime.write", RAW)


@dataclass(kw_only=True)
class Prime(Workload):
    """Reads from an empty pipe, each of which blocks exactly once; a round is one read.

    The writer is a goroutine that writes a byte only when it has seen, in /proc, that the
    reader's thread is blocked on the pipe. With one P it runs only after that P was retaken or
    handed off, so that there are exactly as many of those as there are rounds.
    """

    name: ClassVar[str] = "prime"
    rounds: int | None = 23

    def check(self, policy: str, procs: int) -> None:
        """With ``raw`` and one P the writer would never run."""
        if policy == "raw" and procs < 2:
            raise PretakeError(
                "prime under policy raw waits for ever with one P", "give --procs 2"
            )
        if self.rounds is None:
            raise PretakeError("prime has no end but a number of rounds", "give rounds")

    async def main(self) -> Result:
        """Play the reader."""
        host = current_host()
        self.reader_tid = -1
        read_fd, write_fd = host.pipe()
        rounds = self.rounds or 0
        go(self.feed(read_fd, write_fd, rounds), "writer")
        for _ in range(rounds):
            self.reader_tid = getm().tid
            await read(read_fd, 1, READ)
        host.close_fd(read_fd)
        host.close_fd(write_fd)
        return {"rounds": rounds, "read_fd": read_fd}

    async def feed(self, read_fd: int, write_fd: int, rounds: int) -> None:
        """Write one byte for each read that is seen blocked."""
        host = current_host()
        for _ in range(rounds):
            while not host.blocked_on(self.reader_tid, read_fd):
                await gosched()
            self.reader_tid = -1
            await write(write_fd, b"x", WRITE)
