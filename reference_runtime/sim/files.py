"""Pipes and files of the simulated kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_runtime.host import READABLE, WRITABLE
from reference_runtime.polldesc import PollDesc
from reference_runtime.sim.threads import Thread

if TYPE_CHECKING:
    from mypy_extensions import i64

PIPE_BYTES = 65_536
POLLERR = 8
POLLHUP = 16
"""What poll(2) tells unasked where the other end of a pipe is closed: to the writer POLLERR."""


class Stream:
    """Bytes on their way in one direction: a pipe, or half a socket."""

    def __init__(self, capacity: i64) -> None:
        self.capacity: i64 = capacity
        self.data = bytearray()
        self.ended: bool = False
        """Nobody will write any more."""
        self.broken: bool = False
        """Nobody will read any more."""


class File:
    """What a descriptor stands for.

    Args:
        reads: stream that it reads from, None for none.
        writes: stream that it writes to, None for none.
        block_ns: for a regular file, how long a pread waits for the device; -1 for no file.
    """

    def __init__(self, reads: Stream | None, writes: Stream | None, block_ns: i64 = -1) -> None:
        self.reads = reads
        self.writes = writes
        self.peer: File | None = None
        """The file at the other end, whose waiters a read or write concerns."""
        self.block_ns: i64 = block_ns
        self.blocking: bool = True
        self.readers: list[Thread] = []
        """Threads blocked in read."""
        self.writers: list[Thread] = []
        """Threads blocked in write."""
        self.pollers: list[Thread] = []
        """Threads blocked in poll."""
        self.desc = PollDesc()
        """Who waits for it by the network poller."""

    def ready(self) -> i64:
        """The events that are there, as poll(2) tells them."""
        events: i64 = 0
        reads = self.reads
        if reads is not None and (reads.data or reads.ended):
            events |= READABLE
        writes = self.writes
        if writes is not None and (writes.broken or len(writes.data) < writes.capacity):
            events |= WRITABLE
        if self.block_ns >= 0:
            events = READABLE | WRITABLE
        return events

    def hung_up(self) -> i64:
        """What poll(2) tells although nobody asked for it."""
        events: i64 = 0
        if self.reads is not None and self.writes is None and self.reads.ended:
            events |= POLLHUP
        if self.writes is not None and self.reads is None and self.writes.broken:
            events |= POLLERR
        return events


class Event:
    """Something that happens once, and that calls may block for."""

    def __init__(self) -> None:
        self.happened: bool = False
        self.waiters: list[Thread] = []


def make_pipe() -> tuple[File, File]:
    """The two ends of a pipe: for reading, for writing."""
    stream = Stream(PIPE_BYTES)
    reader = File(stream, None)
    writer = File(None, stream)
    reader.peer = writer
    writer.peer = reader
    return reader, writer


def make_socket_pair() -> tuple[File, File]:
    """Two connected stream sockets."""
    there = Stream(PIPE_BYTES)
    back = Stream(PIPE_BYTES)
    one = File(back, there)
    other = File(there, back)
    one.peer = other
    other.peer = one
    return one, other
