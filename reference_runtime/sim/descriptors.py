"""Descriptors of the simulated kernel: pipes, sockets, files, their calls, the network poller."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from reference_runtime.host import FOR_EVER, READABLE, WRITABLE
from reference_runtime.polldesc import PollWaiter
from reference_runtime.sim.files import File, make_pipe, make_socket_pair
from reference_runtime.sim.gil import Gil
from reference_runtime.sim.machine import Machine
from reference_runtime.sim.threads import BLOCKED, Thread

if TYPE_CHECKING:
    from mypy_extensions import i64

POLLNVAL: Final = 32
"""What poll(2) tells of a number that is no descriptor."""
FIRST_FD: Final = 1_000
"""Descriptors begin here, so that one of the real machine is never taken for one of ours."""


class Descriptors:
    """The descriptors of one simulated program; the calls are those of :class:`Host`.

    Args:
        machine: whose threads make the calls.
        gil: the interpreter's lock; the poller waits without it.
        syscall_ns: price of a system call.
        slack_ns: tells how late the next timer fires.
    """

    def __init__(
        self, machine: Machine, gil: Gil, syscall_ns: i64, slack_ns: Callable[[], int]
    ) -> None:
        self.machine = machine
        self.gil = gil
        self.costs = machine.costs
        self.syscall_ns: i64 = syscall_ns
        self.wake_ns: i64 = machine.costs.wake_call_ns
        self.slack_ns = slack_ns
        self.next_fd: i64 = FIRST_FD
        self.files: dict[int, File] = {}
        self.told: list[File] = []
        """Something happened to them that the network poller waits for (epoll's ready list)."""
        self.evicted: list[PollWaiter] = []
        self.polling: Thread | None = None
        self.poll_broken: bool = False

    def read(self, fd: int, count: int) -> bytes:
        """As :meth:`Host.read`."""
        self.machine.pay(self.syscall_ns)
        file = self.file(fd)
        stream = file.reads
        if stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if count == 0:
            # No read of nothing waits, on Linux either.
            return b""
        while not stream.data:
            if stream.ended:
                return b""
            self._block(file, file.readers, "data in read")
        data = bytes(stream.data[:count])
        del stream.data[:count]
        if file.peer is not None:
            self._tell(file.peer, file.peer.writers, WRITABLE)
        return data

    def write(self, fd: int, data: bytes) -> int:
        """As :meth:`Host.write`."""
        self.machine.pay(self.syscall_ns)
        file = self.file(fd)
        stream = file.writes
        if stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if not data:
            return 0
        while True:
            if stream.broken:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            room = int(stream.capacity) - len(stream.data)
            if room > 0:
                break
            self._block(file, file.writers, "room in write")
        stream.data += data[:room]
        if file.peer is not None:
            self._tell(file.peer, file.peer.readers, READABLE)
        return min(room, len(data))

    def poll(self, fd: int, events: int, timeout_ns: int) -> int:
        """As :meth:`Host.poll`."""
        machine = self.machine
        machine.pay(self.syscall_ns)
        if fd not in self.files:
            return POLLNVAL
        file = self.file(fd)
        wanted: i64 = events
        deadline: i64 = FOR_EVER
        if timeout_ns >= 0:
            deadline = machine.clock() + timeout_ns + self.slack_ns()
        while True:
            ready = (file.ready() & wanted) | file.hung_up()
            if ready or timeout_ns == 0:
                return int(ready)
            left: i64 = FOR_EVER
            if deadline >= 0:
                left = deadline - machine.clock()
                if left <= 0:
                    return 0
            thread = machine.running
            file.pollers.append(thread)
            machine.block("events in poll", left)
            if thread in file.pollers:
                file.pollers.remove(thread)

    def blocked_on(self, thread: Thread, fd: int) -> bool:
        """Whether a thread is blocked in a read or write of the descriptor.

        Not in a poll: the first argument of ppoll(2) is no descriptor.
        """
        file = self.files.get(fd)
        if file is None or thread.state != BLOCKED:
            return False
        return thread in file.readers or thread in file.writers

    def pipe(self) -> tuple[int, int]:
        """As :meth:`Host.pipe`."""
        self.machine.pay(self.syscall_ns)
        reader, writer = make_pipe()
        return self.open(reader), self.open(writer)

    def socket_pair(self) -> tuple[int, int]:
        """socketpair(2): two connected stream sockets."""
        self.machine.pay(self.syscall_ns)
        one, other = make_socket_pair()
        return self.open(one), self.open(other)

    def set_blocking(self, fd: int, blocking: bool) -> None:
        """As ``os.set_blocking``."""
        self.file(fd).blocking = blocking

    def close_fd(self, fd: int) -> None:
        """As :meth:`Host.close_fd`."""
        self.machine.pay(self.syscall_ns)
        file = self.file(fd)
        self._evict(file)
        del self.files[fd]
        peer = file.peer
        if peer is None:
            return
        if file.reads is not None:
            file.reads.broken = True
        if file.writes is not None:
            file.writes.ended = True
        self._tell(peer, peer.readers, READABLE)
        self._tell(peer, peer.writers, WRITABLE)

    # The network poller.

    def netpoll_arm(self, fd: int, event: int, waiter: PollWaiter) -> None:
        """As :meth:`Host.netpoll_arm`."""
        self.machine.owe(self.syscall_ns)
        file = self.file(fd)
        if file.block_ns >= 0:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        file.desc.put(fd, event, waiter)
        wanted: i64 = event
        if file.ready() & wanted:
            self._tell_poller(file)

    def netpoll_disarm(self, fd: int, waiter: PollWaiter) -> bool:
        """As :meth:`Host.netpoll_disarm`."""
        file = self.files.get(fd)
        return file is not None and file.desc.remove(waiter)

    def netpoll(self, delay_ns: i64) -> list[PollWaiter]:
        """As :meth:`Host.netpoll`."""
        machine = self.machine
        if delay_ns == 0:
            machine.owe(self.syscall_ns)
        else:
            self.gil.drop()
            machine.pay(self.syscall_ns)
            if not self.told and not self.evicted and not self.poll_broken:
                self.polling = machine.running
                machine.block(
                    "the network", delay_ns if delay_ns < 0 else delay_ns + self.slack_ns()
                )
                self.polling = None
            self.poll_broken = False
            self.gil.take()
            machine.owe(self.costs.unpark_ns)
        ready: list[PollWaiter] = []
        ready.extend(self.evicted)
        self.evicted.clear()
        for file in self.told:
            file.desc.take(file.ready(), ready)
        self.told.clear()
        return ready

    def netpoll_break(self) -> None:
        """As :meth:`Host.netpoll_break`."""
        self.machine.owe(self.syscall_ns)
        self.poll_broken = True
        self._wake_poller()

    # What the calls above share.

    def open(self, file: File) -> int:
        """A new descriptor for a file."""
        fd = self.next_fd
        self.next_fd += 1
        self.files[int(fd)] = file
        return int(fd)

    def file(self, fd: int) -> File:
        """What a descriptor stands for.

        Raises:
            OSError: EBADF, it is none.
        """
        file = self.files.get(fd)
        if file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return file

    def _block(self, file: File, waiters: list[Thread], what: str) -> None:
        if not file.blocking:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        waiters.append(self.machine.running)
        self.machine.block(what)

    def _tell(self, file: File, waiters: list[Thread], event: i64) -> None:
        """Something happened to ``file``: wake one thread, all pollers, and the network poller.

        The kernel does that as one; the caller pays for it afterwards.
        """
        woken: i64 = 0
        if waiters:
            self.machine.wake(waiters.pop(0))
            woken += 1
        for thread in file.pollers:
            self.machine.wake(thread)
            woken += 1
        file.pollers.clear()
        if file.desc.wanted() & event:
            self._tell_poller(file)
        if woken:
            self.machine.owe(woken * self.wake_ns)

    def _evict(self, file: File) -> None:
        """A file is about to be closed."""
        if file.desc.wanted():
            file.desc.evict(self.evicted)
            self._wake_poller()

    def _tell_poller(self, file: File) -> None:
        if file not in self.told:
            self.told.append(file)
        self._wake_poller()

    def _wake_poller(self) -> None:
        if self.polling is not None:
            self.machine.wake(self.polling)
            self.machine.owe(self.wake_ns)
