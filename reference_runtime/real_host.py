"""The real host: OS threads, real system calls, the kernel's clock."""

from __future__ import annotations

import _thread
import contextlib
import os
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reference_runtime.errors import RunIsOver
from reference_runtime.host import (
    FOR_EVER,
    READABLE,
    WRITABLE,
    Host,
    Lock,
    Note,
    Stopper,
    SwitchWatch,
)
from reference_runtime.knowing import KnowingLock, LockBook
from reference_runtime.locks import NO_GIL, new_lock
from reference_runtime.polldesc import PollDesc, PollWaiter
from tracer.errors import PretakeError

if TYPE_CHECKING:
    from mypy_extensions import i64

try:
    from reference_runtime import _native
    from reference_runtime.real_stopper import SignalStopper

    NATIVE = True
except ImportError:  # not built
    NATIVE = False

SWITCH_INTERVAL_S: Final = 100e-6


class SwitchInterval:
    """The process's switch interval, which several runtimes may want to be short at once."""

    def __init__(self) -> None:
        self.lock = _thread.allocate_lock()
        self.users: i64 = 0
        self.before_s = 0.0

    def begin(self) -> None:
        """One more wants it; the first keeps what it was."""
        with self.lock:
            if self.users == 0:
                self.before_s = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_INTERVAL_S)
            self.users += 1

    def end(self) -> None:
        """One less wants it; the last sets it back."""
        with self.lock:
            self.users -= 1
            if self.users == 0:
                sys.setswitchinterval(self.before_s)


SWITCH_INTERVAL: Final = SwitchInterval()


class ThreadNote(Note):
    """A note on a lock that is held until the wake-up releases it."""

    def __init__(self) -> None:
        self.lock = _thread.allocate_lock()
        self.lock.acquire()

    def sleep(self) -> None:
        """Block until the wake-up."""
        self.lock.acquire()

    def sleep_for(self, ns: i64) -> bool:
        """Block until the wake-up or for ``ns``."""
        return self.lock.acquire(True, int(ns) / 1e9)

    def wakeup(self) -> None:
        """Wake the sleeper; a second wake-up before the sleep is the first one."""
        # Some who wake hold a lock, and neither contextlib.suppress nor an exception is for free.
        if not self.lock.locked():
            return
        try:  # noqa: SIM105
            self.lock.release()
        except RuntimeError:
            # Another waker was between the two, as one may be without a GIL.
            pass


def event_mask(wanted: i64) -> int:
    """``READABLE`` and ``WRITABLE`` as epoll's bits; one-shot, so that nobody is told twice."""
    mask = select.EPOLLONESHOT
    if wanted & READABLE:
        mask |= select.EPOLLIN | select.EPOLLRDHUP
    if wanted & WRITABLE:
        mask |= select.EPOLLOUT
    return mask


def events_of(bits: int) -> i64:
    """epoll's bits as ``READABLE`` and ``WRITABLE`` (go1.21, runtime.netpoll)."""
    events: i64 = 0
    if bits & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
        events |= READABLE
    if bits & (select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR):
        events |= WRITABLE
    return events


class RealHost(Host):
    """This machine.

    Args:
        seed: of the choices that stealing makes.
        book: where locks write who holds them, for tests; None for locks that do not.
    """

    def __init__(self, seed: int = 0, book: LockBook | None = None) -> None:
        self.book = book
        self.chance = random.Random(seed)
        self.opening = _thread.allocate_lock()
        self.epoll: select.epoll | None = None
        self.epoll_fd = -1
        self.wake_fd = -1
        self.descs: dict[int, PollDesc] = {}
        self.evicted: list[PollWaiter] = []
        self.polling = _thread.allocate_lock()
        """Guards the descriptors; a real lock, since epoll_ctl(2) releases the GIL."""
        self.loops_over = bytearray(1)
        """What this host's endless loops look at."""
        self.idents: dict[int, int] = {}
        """By the kernel's id of a thread that asked for it, the interpreter's."""
        self.thread_files: dict[int, int] = {}
        """Of threads whose state was asked for: a descriptor in /proc."""

    def nanotime(self) -> i64:
        """CLOCK_MONOTONIC, as in a trace."""
        return time.monotonic_ns()

    def random(self, n: i64) -> i64:
        """From the seed; how threads meet is not in its hands."""
        return self.chance.randrange(n)

    def new_lock(self) -> Lock:
        """A real lock where the GIL does not do."""
        if self.book is not None:
            return KnowingLock(self.book)
        return new_lock()

    def is_parallel(self) -> bool:
        """Without a GIL."""
        return NO_GIL

    def new_note(self) -> Note:
        """A note on a lock."""
        return ThreadNote()

    def start_thread(self, body: Callable[[], None], name: str) -> None:  # noqa: ARG002
        """Not a threading.Thread, whose start waits for the thread to be there."""
        _thread.start_new_thread(body, ())

    def thread_id(self) -> i64:
        """The kernel's id."""
        tid = _thread.get_native_id()
        self.idents[tid] = _thread.get_ident()
        return tid

    def end_code(self, tid: i64) -> None:
        """At the interpreter's next look, if the thread is in Python code at all."""
        ident = self.idents.get(int(tid))
        if NATIVE and ident is not None:
            _native.raise_in(ident, RunIsOver)

    def thread_ends(self) -> None:
        """Catch what :meth:`end_code` raised, if this thread came to its end without a look."""
        self.idents.pop(_thread.get_native_id(), None)
        if NATIVE:
            _native.catch_raised(RunIsOver, False)

    def forget_raised(self) -> None:
        """Have the interpreter know of no exception that a thread is still to raise.

        A thread that is left to itself in a system call may have one (:meth:`end_code`). To
        CPython 3.11 every thread then has something to see to at every call; one whose lines are
        traced (``_lines.c``) never gets into the Python function that it calls. Who raises and
        catches one takes the mark away, so this thread does, in C alone: its own lines are traced
        if it runs a goroutine of another runtime.
        """
        if NATIVE:
            _native.catch_raised(RunIsOver, True)

    def thread_cpu_ns(self) -> i64:
        """CLOCK_THREAD_CPUTIME_ID."""
        return time.thread_time_ns()

    def thread_blocked(self, tid: i64) -> bool:
        """Not "running" in /proc/self/task/TID/syscall; the file is kept open.

        1.7 µs a look; ``stat`` takes 2.7 for what else it tells, and opening it as much again.
        """
        fd = self.thread_files.get(tid, -1)
        try:
            if fd < 0:
                fd = os.open(f"/proc/self/task/{tid}/syscall", os.O_RDONLY | os.O_CLOEXEC)
                self.thread_files[tid] = fd
            return not os.pread(fd, 8, 0).startswith(b"running")
        except OSError:
            return False

    def watch_switches(self, upcall: bool) -> SwitchWatch:
        """Perf events tell of switches; nothing in Linux makes an upcall."""
        if upcall:
            raise PretakeError(
                "policy ums needs a kernel that calls the scheduler at each block",
                "use the simulated host, or policy sched_out here",
            )
        from reference_runtime.switch_watch import PerfSwitchWatch

        return PerfSwitchWatch()

    def watch_blocks(self) -> SwitchWatch:
        """By a BPF program, which takes root and Linux 6.13."""
        from reference_runtime.switch_watch import SignalSwitchWatch

        return SignalSwitchWatch()

    def blocked_on(self, tid: i64, fd: int) -> bool:
        """As /proc tells: the number and arguments of the call, or "running".

        Raises:
            PretakeError: /proc does not tell; whoever waits for the call would wait for ever.
        """
        try:
            call = Path(f"/proc/self/task/{tid}/syscall").read_text(encoding="ascii").split()
        except PermissionError:
            raise PretakeError(
                "/proc does not tell in which call a thread of this process is",
                "start it as the user that it runs as: who changes users may not read himself",
            ) from None
        except OSError:
            return False
        return len(call) > 2 and int(call[1], 16) == fd

    def new_stopper(self) -> Stopper | None:
        """By SIGURG; None where the C module is not built."""
        if not NATIVE:
            return None
        return SignalStopper()

    def tgkill(self, tid: i64, signo: i64) -> None:
        """tgkill(2); a thread that is gone is no error."""
        if NATIVE:
            _native.send_signal(tid, signo)

    def let_others_run(self) -> None:
        """Drop the GIL. Whoever has asked for it for 5 ms gets it."""
        if NATIVE:
            _native.drop_gil()
        else:
            # Not time.sleep(0), which really sleeps: the kernel adds its timer slack to 0 too.
            Path("/").stat()

    def wait_for_end(self, finished: Note, limit_ns: i64 = FOR_EVER) -> bool:
        """As :meth:`Host.wait_for_end`, with a GIL that changes hands faster.

        A thread that comes out of a system call waits for the GIL, and one that makes many short
        calls takes it back each time before the other has woken, until the other has waited for
        the switch interval. Python's 5 ms would stand in every tail.
        """
        SWITCH_INTERVAL.begin()
        try:
            return super().wait_for_end(finished, limit_ns)
        finally:
            SWITCH_INTERVAL.end()

    def usleep(self, ns: i64) -> None:
        """clock_nanosleep(2); the kernel adds its timer slack of 50 µs, as for Go."""
        time.sleep(int(ns) / 1e9)

    def close(self) -> None:
        """Close the network poller and the files of threads."""
        for fd in self.thread_files.values():
            os.close(fd)
        self.thread_files.clear()
        self.idents.clear()
        if self.epoll is not None:
            self.epoll.close()
            os.close(self.wake_fd)
            self.epoll = None
        self.descs.clear()
        self.evicted.clear()

    # System calls.

    def read(self, fd: int, count: int) -> bytes:
        """read(2)."""
        return os.read(fd, count)

    def write(self, fd: int, data: bytes) -> int:
        """write(2)."""
        return os.write(fd, data)

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        """pread(2)."""
        return os.pread(fd, count, offset)

    def poll(self, fd: int, events: int, timeout_ns: int) -> int:
        """ppoll(2), or poll(2) in whole ms where the C module is not built."""
        if NATIVE:
            return _native.poll_one(fd, events, timeout_ns)
        poller = select.poll()
        poller.register(fd, events)
        ready = poller.poll(None if timeout_ns < 0 else -(-timeout_ns // 1_000_000))
        return ready[0][1] if ready else 0

    def nanosleep(self, ns: int) -> None:
        """clock_nanosleep(2)."""
        time.sleep(ns / 1e9)

    def pipe(self) -> tuple[int, int]:
        """pipe2(2)."""
        return os.pipe()

    def tcp_pair(self) -> tuple[int, int]:
        """A connection to oneself on 127.0.0.1."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
        return client.detach(), server.detach()

    def close_fd(self, fd: int) -> None:
        """As :meth:`Host.close_fd`."""
        if fd in self.descs:
            self.evict(fd)
        os.close(fd)

    def spin_ns(self, ns: int) -> None:
        """Without the GIL where the C module is built; else the GIL is had for it."""
        if NATIVE:
            _native.spin_ns(ns)
            return
        end_ns = time.monotonic_ns() + ns
        while time.monotonic_ns() < end_ns:
            time.sleep(0)

    def endless_loop(self, nosplit: bool) -> None:
        """Without the GIL where the C module is built; else nobody else would ever run."""
        if not NATIVE:
            raise RuntimeError("an endless loop needs the C module")
        _native.endless_loop(self.loops_over, nosplit)

    def end_loops(self, over: bool) -> None:
        """By a flag that the loops read."""
        self.loops_over[0] = over

    # The network poller.

    def open_netpoll(self) -> select.epoll:
        """The epoll descriptor, made when first needed (Go: netpollGenericInit)."""
        # A real lock: the calls below release the GIL, and a second thread would make a second
        # poller, on which nobody waits.
        with self.opening:
            if self.epoll is None:
                epoll = select.epoll()
                self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                epoll.register(self.wake_fd, select.EPOLLIN)
                self.epoll_fd = epoll.fileno()
                self.epoll = epoll
            return self.epoll

    def netpoll_arm(self, fd: int, event: int, waiter: PollWaiter) -> None:
        """One registration for both slots, one-shot."""
        epoll = self.open_netpoll()
        stale = False
        with self.polling:
            desc = self.descs.get(fd)
            if desc is None:
                desc = PollDesc()
            elif desc.wanted() & event and not self.is_known(epoll, fd, desc):
                # The descriptor was closed behind our back, and its number is another file's.
                desc.evict(self.evicted)
                desc = PollDesc()
                stale = True
            desc.put(fd, event, waiter)
            try:
                self.register(epoll, fd, desc)
            except OSError:
                desc.remove(waiter)
                raise
            self.descs[fd] = desc
        if stale:
            self.netpoll_break()

    def is_known(self, epoll: select.epoll, fd: int, desc: PollDesc) -> bool:
        """Whether the kernel's poller still knows the descriptor."""
        try:
            epoll.modify(fd, event_mask(desc.wanted()))
        except OSError:
            return False
        return True

    def register(self, epoll: select.epoll, fd: int, desc: PollDesc) -> None:
        """Tell the kernel's poller for what the descriptor is waited for."""
        mask = event_mask(desc.wanted())
        if desc.registered:
            try:
                epoll.modify(fd, mask)
                return
            except FileNotFoundError:
                # As above, but nobody waits for the same event.
                pass
        epoll.register(fd, mask)
        desc.registered = True

    def netpoll_disarm(self, fd: int, waiter: PollWaiter) -> bool:
        """What the kernel's poller tells of it from now on finds nobody."""
        with self.polling:
            desc = self.descs.get(fd)
            return desc is not None and desc.remove(waiter)

    def evict(self, fd: int) -> None:
        """The descriptor is about to be closed."""
        with self.polling:
            desc = self.descs.pop(fd, None)
            if desc is None:
                return
            if self.epoll is not None:
                with contextlib.suppress(OSError):
                    self.epoll.unregister(fd)
            waited_for = desc.wanted() != 0
            desc.evict(self.evicted)
        if waited_for:
            self.netpoll_break()

    def netpoll(self, delay_ns: i64) -> list[PollWaiter]:
        """epoll_wait(2) counts in ms, so the wait is a ppoll(2) of the epoll descriptor."""
        epoll = self.open_netpoll()
        if delay_ns != 0 and not self.evicted:
            self.poll(self.epoll_fd, READABLE, delay_ns)
        ready: list[PollWaiter] = []
        with self.polling:
            ready.extend(self.evicted)
            self.evicted.clear()
            for fd, events in epoll.poll(0):
                if fd == self.wake_fd:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self.wake_fd)
                    continue
                desc = self.descs.get(fd)
                if desc is None:
                    continue
                desc.take(events_of(events), ready)
                if desc.wanted() and not self.is_known(epoll, fd, desc):
                    desc.evict(ready)
        return ready

    def netpoll_break(self) -> None:
        """Wake the poller by its event descriptor."""
        self.open_netpoll()
        os.eventfd_write(self.wake_fd, 1)
