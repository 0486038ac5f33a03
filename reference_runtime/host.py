"""The host: everything that the scheduler needs from a machine.

For example, the scheduler never reads the clock itself; it calls ``Host.nanotime``. The same holds
for threads, system calls and random numbers. So the same scheduler code runs on
:class:`~reference_runtime.real_host.RealHost`, with OS threads and real system calls, and on a
simulated host, with virtual ones.

Rules for a host:

- A *thread* runs until it calls a method marked "may switch" below. A host may run another
  thread there, and nowhere else does the scheduler count on not being interrupted: shared
  fields are changed under a :class:`Lock`, and no method that may switch is called while one
  is held (``Lock.acquire`` itself may switch, before it is granted).
- The scheduler calls ``current.set_current`` when a thread begins; a host does not. Only a host
  that runs many threads on one OS thread saves and restores the value when it switches.
- Times are in ns. A length of ``-1`` means for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.polldesc import PollWaiter

READABLE: Final = 1
"""What ``poll`` and the network poller wait for: as POLLIN."""
WRITABLE: Final = 4
"""As POLLOUT."""
FOR_EVER: Final = -1


class Lock:
    """Guards fields that several Ms change; held for a few field accesses, never over a wait."""

    def acquire(self) -> None:
        """Wait for the lock and hold it. May switch."""

    def release(self) -> None:
        """Give it up."""


class Note:
    """One sleeper, one wake-up that is remembered if it comes first (Go: note).

    A sleep consumes the wake-up, so the note can be used again at once.
    """

    def sleep(self) -> None:
        """Block the thread until the wake-up. May switch."""
        raise NotImplementedError

    def sleep_for(self, ns: i64) -> bool:
        """Block the thread until the wake-up or for ``ns``; whether it was woken. May switch."""
        raise NotImplementedError

    def wakeup(self) -> None:
        """Wake the sleeper, or let its next sleep return at once. Never blocks."""
        raise NotImplementedError


class SwitchWatch:
    """Tells which threads blocked, as the kernel knows it (``sched_out``, ``upcall``, ``ums``)."""

    def add(self, tid: i64, number: i64) -> None:
        """Watch a thread of this process, from now on, under the caller's ``number`` for it.

        Raises:
            PretakeError: the kernel forbids it.
        """
        raise NotImplementedError

    def wait(self, timeout_ns: i64) -> list[int]:
        """Numbers of threads that blocked since the last wait; may be none. May switch.

        A thread that was preempted is not told. One that blocked and runs again may be.
        """
        raise NotImplementedError

    def break_wait(self) -> None:
        """Make the wait return, and every later one."""
        raise NotImplementedError

    def close(self) -> None:
        """Watch no more."""
        raise NotImplementedError


class Stopper:
    """Stops threads where they are, by a signal, and lets them go on (Go: preemptM and its kin).

    Each M has a slot. When the signal comes, the M's thread stops if a stop is still wanted and
    the thread is at a safe point. Safe points are in compute kernels, never in the runtime's own
    code. Otherwise the stop is refused, and counted.
    """

    def end(self) -> tuple[int, int, int, int]:
        """Stop handling signals, and tell what they did since this stopper was made.

        Returns:
            How many stopped a thread, and how many were refused: as not wanted, at an unsafe
            point, on a thread that runs no goroutine.
        """
        raise NotImplementedError

    def thread_begins(self, m: object) -> i64:
        """Make a slot for the calling thread, which is M's."""
        raise NotImplementedError

    def thread_ends(self) -> None:
        """Free the calling thread's slot."""
        raise NotImplementedError

    def runs_goroutines(self, slot: i64, yes: bool) -> None:
        """Whether the slot's M is about to run goroutines, or to park."""
        raise NotImplementedError

    def ask(self, slot: i64, tid: i64, p: object, g: object) -> bool:
        """Ask the slot's thread to stop; False if an earlier signal to it has not arrived yet."""
        raise NotImplementedError

    def withdraw(self, slot: i64) -> None:
        """Take the request back, since the goroutine left its M. On the slot's own thread."""
        raise NotImplementedError

    def stopped(self, slot: i64) -> bool:
        """Whether the slot's thread stands where a signal stopped it."""
        raise NotImplementedError

    def resume(self, slot: i64, p: object, g: object) -> None:
        """Let a stopped thread go on; its M has P now."""
        raise NotImplementedError

    def count(self) -> i64:
        """How many stops there were, announced ones included."""
        raise NotImplementedError

    def announce(self) -> None:
        """Wake the threads that wait for a stop."""
        raise NotImplementedError

    def wait(self, seen: i64, ns: i64) -> None:
        """Until there were more stops than ``seen``, or for ``ns``. May switch."""
        raise NotImplementedError


class Host:
    """A machine. Methods that wait say "may switch"."""

    # Time and chance.

    def nanotime(self) -> i64:
        """The monotonic clock, ns."""
        raise NotImplementedError

    def random(self, n: i64) -> i64:
        """A number in [0, n), from the host's seed: where stealing begins."""
        raise NotImplementedError

    # Threads.

    def new_lock(self) -> Lock:
        """A free lock."""
        raise NotImplementedError

    def is_parallel(self) -> bool:
        """Whether two threads may run the scheduler's code at the same moment.

        Where they may, what one has written under no lock is not yet there for the other.
        """
        return False

    def new_note(self) -> Note:
        """A note with no wake-up in it."""
        raise NotImplementedError

    def start_thread(self, body: Callable[[], None], name: str) -> None:
        """Run ``body``, which does not raise, on a new thread. Returns at once.

        Raises:
            RuntimeError: the machine has no room for another thread.
        """
        raise NotImplementedError

    def thread_id(self) -> i64:
        """The calling thread's id, as the kernel knows it."""
        raise NotImplementedError

    def end_code(self, tid: i64) -> None:
        """The run is over: end what a thread that still computes does, where that can be done."""

    def thread_ends(self) -> None:
        """The calling thread is done: nothing that :meth:`end_code` does may come after this."""

    def thread_cpu_ns(self) -> i64:
        """CPU time that the calling thread has used."""
        raise NotImplementedError

    def thread_blocked(self, tid: i64) -> bool:
        """Whether the kernel says that the thread is not runnable (policy ``thread_state``)."""
        raise NotImplementedError

    def watch_switches(self, upcall: bool) -> SwitchWatch:
        """A watch of the switches of this process's threads, on none yet.

        Args:
            upcall: the kernel runs the waiting thread on the CPU that a blocked thread left.

        Raises:
            PretakeError: this machine cannot, or forbids it.
        """
        raise NotImplementedError

    def watch_blocks(self) -> SwitchWatch:
        """As :meth:`watch_switches`, told of blocks alone: the kernel itself wakes who waits.

        One thread waits at a time; it need not be the same. What blocks meanwhile is told by the
        next wait, if it is still blocked.

        Raises:
            PretakeError: this machine cannot, or forbids it.
        """
        raise NotImplementedError

    def blocked_on(self, tid: i64, fd: int) -> bool:
        """Whether the thread is blocked in a system call whose first argument is ``fd``."""
        raise NotImplementedError

    def new_stopper(self) -> Stopper | None:
        """What stops threads by SIGURG, set up; None where the host has nothing of the kind."""
        raise NotImplementedError

    def tgkill(self, tid: i64, signo: i64) -> None:
        """Send a signal to one thread of this process."""
        raise NotImplementedError

    def let_others_run(self) -> None:
        """Release what the threads of the host share (a GIL). A busy M calls this now and then."""

    def usleep(self, ns: i64) -> None:
        """The monitor's sleep. May switch."""
        raise NotImplementedError

    def wait_for_end(self, finished: Note, limit_ns: i64 = FOR_EVER) -> bool:
        """The caller of ``Runtime.run`` waits here; a simulated host runs its machine meanwhile.

        Returns:
            Whether the run is over; False after ``limit_ns``.

        Raises:
            KeyboardInterrupt: the user asked to stop.
        """
        if limit_ns < 0:
            finished.sleep()
            return True
        return finished.sleep_for(limit_ns)

    def close(self) -> None:
        """Give back what the host holds; no thread of the runtime is left but stuck ones."""

    # System calls, as a goroutine makes them on its M's thread. All may switch.

    def read(self, fd: int, count: int) -> bytes:
        """read(2).

        Raises:
            BlockingIOError: the descriptor is non-blocking and has nothing.
            OSError: as the kernel says.
        """
        raise NotImplementedError

    def write(self, fd: int, data: bytes) -> int:
        """write(2); raises as :meth:`read`."""
        raise NotImplementedError

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        """pread(2)."""
        raise NotImplementedError

    def poll(self, fd: int, events: int, timeout_ns: int) -> int:
        """ppoll(2) on one descriptor; the events that are there, 0 after the timeout.

        What is no descriptor is told at once, as POLLNVAL (32).
        """
        raise NotImplementedError

    def nanosleep(self, ns: int) -> None:
        """clock_nanosleep(2): blocks the thread, unlike a goroutine's ``sleep``."""
        raise NotImplementedError

    def pipe(self) -> tuple[int, int]:
        """pipe2(2): read end, write end."""
        raise NotImplementedError

    def tcp_pair(self) -> tuple[int, int]:
        """Both ends of a TCP connection over loopback, non-blocking, without delay."""
        raise NotImplementedError

    def close_fd(self, fd: int) -> None:
        """close(2), after those who wait for the descriptor were evicted."""
        raise NotImplementedError

    def spin_ns(self, ns: int) -> None:
        """Use a CPU for ``ns``, in parallel with other threads."""
        raise NotImplementedError

    def endless_loop(self, nosplit: bool) -> None:
        """Use a CPU until loops are to end, and call nothing; ``nosplit``: at no safe point."""
        raise NotImplementedError

    def end_loops(self, over: bool) -> None:
        """Whether endless loops are to end: at the end of a run, so that their threads do."""
        raise NotImplementedError

    # The network poller (Go: netpoll). ``waiter`` is the scheduler's, given back when ready.

    def netpoll_arm(self, fd: int, event: int, waiter: PollWaiter) -> None:
        """Have ``netpoll`` return ``waiter`` once, when ``fd`` is ready for ``event``.

        A descriptor has room for one that waits for ``READABLE`` and one for ``WRITABLE``. Both
        are ready where the other end is closed. If it is closed itself, by :meth:`close_fd`, they
        are evicted: returned with ``evicted`` set. What raises leaves nothing armed.

        Raises:
            DoubleWait: another waiter waits for this event already.
            OSError: EBADF for what is no descriptor, EPERM for one that cannot be waited for,
                such as a regular file.
        """
        raise NotImplementedError

    def netpoll_disarm(self, fd: int, waiter: PollWaiter) -> bool:
        """Have ``netpoll`` not return ``waiter``; False if it did or is about to."""
        raise NotImplementedError

    def netpoll(self, delay_ns: i64) -> list[PollWaiter]:
        """Waiters whose descriptors are ready; waits up to ``delay_ns`` for the first.

        May switch, if ``delay_ns`` is not 0.
        """
        raise NotImplementedError

    def netpoll_break(self) -> None:
        """Make a waiting ``netpoll`` return, or the next one that would wait."""
        raise NotImplementedError
