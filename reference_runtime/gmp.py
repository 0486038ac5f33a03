"""What the scheduler is made of: G, M, P and the state they share.

This file has data only. Beside each state stands who may change it. The code that does so is
functions over :class:`Sched`, in the modules beside this one. The tracer reads these objects out
of the process's memory, by the offsets that DWARF gives for the compiled classes. So the names
and the ``i64`` types of the fields below the line "read by the tracer" are an interface.

The words are the Go runtime's (go1.21, runtime/runtime2.go).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Final

from reference_runtime.host import FOR_EVER, Host, Lock, Note, Stopper
from reference_runtime.like import LEAN, Rules
from reference_runtime.timers import Timers

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.channels import Waiter
    from reference_runtime.policies.base import RetakePolicy
    from reference_runtime.record import Record

Goroutine = Coroutine[object, object, object] | Generator[object, object, object]

# States of a G, with Go's numbers. In brackets: who owns the G, and who may change the state.
G_RUNNABLE: Final = 1
"""On exactly one run queue, runs nowhere [the queue; whoever takes it off]."""
G_RUNNING: Final = 2
"""On no queue, runs on the M whose curg it is, with that M's P [the M]. An M that makes a raw
system call, and one that is about to park its G, is in this state too."""
G_SYSCALL: Final = 3
"""On no queue; its M is in a system call, with or without a P [the M, not the P]."""
G_WAITING: Final = 4
"""On no run queue; a channel, timer, lock or the network poller knows it [whoever readies it]."""
G_DEAD: Final = 6
"""Returned, or never to run again [nobody]."""
G_PREEMPTED: Final = 9
"""Stands still for ``suspend_g``, on no queue, runs nowhere [whoever suspended it]."""

# States of a P, with Go's numbers.
P_IDLE: Final = 0
"""On the idle list, or in the hands of one M that is giving it away [sched.lock, that M]."""
P_RUNNING: Final = 1
"""An M's own; it runs goroutines or looks for some [that M]."""
P_SYSCALL: Final = 2
"""Its M is in a system call and was not asked to give it up. Under P's lock either the M takes
it back (to running) or somebody retakes it (to idle): whoever is first."""
P_GCSTOP: Final = 3
"""The world is stopped, or about to be; on no list [who stopped it]."""
P_DEAD: Final = 4
"""The runtime has stopped, or the P is the sentinel [nobody]."""

PREEMPT_OFF: Final = 0
"""Nobody is asked to stop."""
PREEMPT_COOPERATIVE: Final = 1
"""Goroutines stop where they look (Go up to 1.13, or GODEBUG=asyncpreemptoff=1)."""
PREEMPT_ASYNC: Final = 2
"""Where a signal meets them, too (Go from 1.14)."""
MAX_THREADS: Final = 10_000
"""How many Ms a program may have (Go: sched.maxmcount, debug.SetMaxThreads)."""
FORCE_PREEMPT_NS: Final = 10_000_000
"""How long a goroutine has its P before it is asked to give it up (Go: forcePreemptNS)."""

STACK_PREEMPT: Final = 1
"""The poison in a G's stackguard (Go: stackPreempt)."""

# What a goroutine wants of its M when it yields; the M looks at it after the switch.
YIELD: Final = 0
"""To run again after the others."""
PARK: Final = 1
"""To wait until somebody readies it."""
NO_P_LEFT: Final = 2
"""To run again, on another P: its M came out of a system call and has none."""
STOP: Final = 3
"""To stop, since it was asked to."""


class G:
    """A goroutine: a coroutine or generator, and where it stands.

    ``steps`` is resumed once for each turn that the goroutine gets. A G that parks is readied
    exactly once; the wake-up may come before the G has left its M, and is then kept in
    ``token`` until it has. So nothing needs to be locked across the switch.
    """

    def __init__(self, goid: i64, coro: object, steps: Iterator[object], name: str) -> None:
        # Read by the tracer.
        self.goid: i64 = goid
        self.status: i64 = G_RUNNABLE
        # Ours.
        self.coro = coro
        self.steps = steps
        self.name = name
        self.stackguard: i64 = 0
        """Poisoned to ask for preemption; the goroutine looks at it where it awaits."""
        self.wait_reason = ""
        self.token: bool = False
        self.special: bool = False
        """It is not to be run like others: it is bound to an M, or suspended."""
        self.bound: M | None = None
        """The M whose thread a signal stopped in the middle of this goroutine's code: it goes on
        there and nowhere else."""
        self.suspended: bool = False
        """Somebody wants it to stand still (Go: preemptStop)."""
        self.waiter: Waiter | None = None
        """Its place in the queue of a channel; kept for the next time (``channels.py``)."""
        self.schedlink: G | None = None
        self.all_next: G | None = None
        self.all_prev: G | None = None


NO_G: Final = G(-1, None, iter(()), "none")
"""Stands for "no goroutine", so that the tracer never meets a null pointer."""
NO_G.status = G_DEAD


class P:
    """A processor: the right to run goroutines, and a queue of those that may run on it.

    ``runqhead`` counts the Gs that ever left the queue, ``runqtail`` those that ever joined;
    their difference is its length, at most ``capacity``. The owner appends; the owner and
    thieves take from the head, under ``lock``. Go's ring is a list here (through the Gs, as the
    global queue): an index into a Python list costs more than the links.
    """

    def __init__(self, id: i64, capacity: i64, lock: Lock) -> None:
        # Read by the tracer.
        self.id: i64 = id
        self.status: i64 = P_IDLE
        self.runqhead: i64 = 0
        self.runqtail: i64 = 0
        # Ours.
        self.capacity: i64 = capacity
        self.runq_first: G | None = None
        self.runq_last: G = NO_G
        self.has_next: bool = False
        """The first G of the queue is Go's runnext: the capacity does not count it, and the Gs of
        the queue come after it. With it in the queue, the length is still two numbers."""
        self.inherits: bool = False
        """The G that was just taken from the queue was runnext: it goes on in the time slice."""
        self.lock: Final = lock
        self.schedtick: i64 = 0
        self.syscalltick: i64 = 0
        self.changed_hands: bool = False
        """No goroutine has run here since another M took it over."""
        self.lost_enter_ns: i64 = 0
        """When the system call began for which the P was last taken or given away; 0 for none."""
        self.was_retaken: bool = False
        """It was taken for that call, and not given away."""
        self.link: P | None = None
        # The monitor's notes, as Go's sysmontick.
        self.seen_syscalltick: i64 = -1
        self.seen_syscall_ns: i64 = 0
        self.seen_schedtick: i64 = -1
        self.seen_sched_ns: i64 = 0
        self.m: M | None = None
        """Whose it is; kept through a system call, so that a retake knows the loser."""


class M:
    """A thread of the host that runs goroutines, or the monitor.

    While its goroutine is in a system call an M keeps its P in ``p`` (Go moves it to ``oldp``),
    until it is retaken: so the tracer sees one field for "holds a P".
    """

    def __init__(self, id: i64, sched: Sched, note: Note, exited: Note) -> None:
        # Read by the tracer.
        self.id: i64 = id
        self.tid: i64 = 0
        self.p: P = NO_P
        self.nextp: P = NO_P
        self.curg: G = NO_G
        self.sched: Final = sched
        # Ours.
        self.wants: i64 = YIELD
        self.spinning: bool = False
        self.enter_ns: i64 = 0
        """When the system call it is in was entered; 0 where nobody asked for the time."""
        self.raw_since_ns: i64 = 0
        """Since when it is in a raw call that the monitor may make a normal one; 0 for none."""
        self.note: Final = note
        """It parks here; woken with a P in nextp, or to end."""
        self.exited: Final = exited
        self.oldp: P = NO_P
        """The P with which it entered its last system call (Go: m.oldp)."""
        self.schedlink: M | None = None
        self.slot: i64 = 0
        """Where the host's signal handler finds what is asked of this M; 0 for nowhere."""
        self.asked: bool = False
        """Its goroutine was asked to stop, and has not left it since."""
        self.asked_ns: i64 = 0
        self.holds_world: bool = False
        """Its goroutine has stopped the world, and must not be stopped itself (Go: m.locks)."""
        self.policy_data: object = None
        """Whatever the retake policy keeps for each thread (a perf event, say)."""


class Sched:
    """One run of one program: everything that its Ms share.

    It owns the lock, the host, the Ps and the Ms. Everything else is functions over it, each layer
    in a module of its own (``README.md`` has the list). ``lock`` guards what the tracer reads, and
    all queues and lists.

    Args:
        host: the machine.
        policy: how Ps come back from system calls.
        procs: number of Ps (GOMAXPROCS).
        queue_capacity: of each P's local queue, at least 2.
        record: where the run's own counters and retakes go.
        preempt: one of ``PREEMPT_OFF``, ``PREEMPT_COOPERATIVE``, ``PREEMPT_ASYNC``.
        time_slice_ns: how long a goroutine runs before the monitor asks it to stop.
        maxmcount: how many Ms there may be.
        rules: like which Go it decides.
    """

    def __init__(
        self,
        host: Host,
        policy: RetakePolicy,
        procs: int,
        queue_capacity: int,
        record: Record,
        preempt: i64 = PREEMPT_COOPERATIVE,
        time_slice_ns: i64 = FORCE_PREEMPT_NS,
        maxmcount: i64 = MAX_THREADS,
        rules: Rules = LEAN,
    ) -> None:
        # Read by the tracer.
        self.npidle: i64 = 0
        self.nmspinning: i64 = 0
        self.runqsize: i64 = 0
        # Ours.
        self.host: Final = host
        self.parallel: Final = host.is_parallel()
        """Two Ms may run the scheduler's code at the same moment."""
        self.policy: Final = policy
        self.record: Final = record
        self.rules: Final = rules
        self.runnext: bool = rules.runnext and preempt != PREEMPT_OFF
        """As the rules say, but never where nobody ends a time slice (go1.21, runqput)."""
        self.lock: Final = host.new_lock()
        self.wait_lock: Final = host.new_lock()
        """Guards what goroutines wait on: channels, mutexes, wait groups."""
        self.allp: Final = [P(i, queue_capacity, host.new_lock()) for i in range(procs)]
        self.allm: Final[list[M]] = []
        self.m_main: Callable[[M], None] = no_main
        """The body of an M's thread."""
        # Queues and lists.
        self.runq_first: G | None = None
        self.runq_last: G | None = None
        self.pidle: P | None = None
        self.midle: M | None = None
        self.nmidle: i64 = 0
        self.mcount: i64 = 0
        self.maxmcount: i64 = maxmcount
        self.allg: G | None = None
        self.ngoroutines: i64 = 0
        self.goidgen: i64 = 0
        # Life of the run.
        self.main: G = NO_G
        self.stopping: bool = False
        self.failure: BaseException | None = None
        self.finished: Final = host.new_note()
        # Those that wait without a thread, and who looks after them (``netpoll.py``).
        self.timers: Final = Timers(host.new_lock())
        self.poller: M | None = None
        self.poll_until_ns: i64 = FOR_EVER
        self.netpoll_waiters: i64 = 0
        self.last_netpoll_ns: i64 = 0
        # The monitor.
        self.monitor: M | None = None
        self.monitor_note: Final = host.new_note()
        self.monitor_waits: bool = False
        # Stop-the-world (``world.py``).
        self.gcwaiting: bool = False
        """The world is stopped, or somebody waits for it to stop."""
        self.stopwait: i64 = 0
        """Ps that whoever stops the world still waits for."""
        self.world_sema: object = None
        """Held by whoever stops the world or a goroutine; see ``stopping.py``."""
        # Preemption.
        self.preempt: i64 = preempt
        self.time_slice_ns: i64 = time_slice_ns
        self.stopper: Stopper | None = None
        self.stops_looked_at: i64 = 0
        self.next_slices_ns: i64 = 0
        self.stop_note: Final = host.new_note()
        """Where there is no stopper: whoever waits for a stop sleeps here."""
        # A simulated machine.
        self.tolled: i64 = 0
        """Whether a transition is to be paid for: on a simulated machine only."""
        self.toll: Callable[[int], None] | None = None
        """Takes the time that a transition of some kind costs."""


def no_main(m: M) -> None:
    """Stands for the body of an M's thread before the run begins."""
    raise NotImplementedError


NO_P: Final = P(-1, 0, Lock())
"""Stands for "no P"."""
NO_P.status = P_DEAD
