"""``adaptive``: each call site learns from its past calls how to make the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, cast

from mypy_extensions import mypyc_attr

from reference_runtime.current import get_current
from reference_runtime.gmp import G_SYSCALL, P_RUNNING, P_SYSCALL
from reference_runtime.locks import new_lock
from reference_runtime.policies.base import BLOCK, NORMAL, RAW, RetakePolicy, Site
from reference_runtime.transitions import (
    NO_TID,
    SITE_MODE,
    TO_BLOCK,
    TO_NORMAL,
    TO_RAW,
    transition,
)

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import M, P, Sched

LONG_NS: Final = 200_000
"""A call that is longer costs no more: about then the monitor retakes its P."""
BLOCK_ABOVE_NS: Final = 40_000
"""A site whose calls cost more than this on average hands off: twice what a handoff takes."""
BLOCK_BELOW_NS: Final = 15_000
"""A site that hands off doubts that if its calls cost less than this, as a handoff does."""
SHORT_NS: Final = 10_000
SHORT_CALLS: Final = 64
"""After so many short calls in a row the runtime is told of none any more."""
WEIGHT: Final = 8
"""Each call weighs an eighth: a site changes its mind after a handful."""
DOUBTS: Final = 16
MOST_DOUBTS: Final = 1024
"""After so many short calls in a row a site that hands off tries one without; each time that this
was wrong, it takes twice as many."""
RESCUE_NS: Final = 1_000_000
"""A raw call that lasts so long is made a normal one by the monitor."""
TOLD: Final = {RAW: TO_RAW, NORMAL: TO_NORMAL, BLOCK: TO_BLOCK}


class Memory:
    """What a site has learnt under one policy object."""

    def __init__(self) -> None:
        self.lock: Final = new_lock()
        self.mode: i64 = NORMAL
        self.mean_ns: i64 = 0
        """Moving average of the calls' lengths, each cut at ``LONG_NS``."""
        self.short: i64 = 0
        """Short calls in a row."""
        self.doubts: i64 = DOUBTS
        """How many of them it takes to try a call without handoff."""

    def next_mode(self) -> i64:
        """Which way the next call goes: as learnt, or a try."""
        self.lock.acquire()
        mode = self.mode
        if mode == BLOCK and self.short >= self.doubts:
            self.short = 0
            mode = NORMAL
        self.lock.release()
        return mode

    def learn(self, mode: i64, length_ns: i64) -> bool:
        """From a call that went ``mode`` and took so long; whether that changed the mode."""
        self.lock.acquire()
        changed = self.learn_alone(mode, length_ns)
        self.lock.release()
        return changed

    def learn_alone(self, mode: i64, length_ns: i64) -> bool:
        """As :meth:`learn`; the lock is held."""
        before = self.mode
        length_ns = min(length_ns, LONG_NS)
        if before == BLOCK:
            if mode == BLOCK:
                self.short = self.short + 1 if length_ns < BLOCK_BELOW_NS else 0
            elif length_ns < BLOCK_BELOW_NS:
                self.mean_ns = length_ns
                self.mode = NORMAL
            else:
                self.doubts = min(self.doubts * 2, MOST_DOUBTS)
        else:
            self.mean_ns += (length_ns - self.mean_ns) // WEIGHT
            self.short = self.short + 1 if length_ns < SHORT_NS else 0
            if self.mean_ns > BLOCK_ABOVE_NS:
                self.doubts = min(self.doubts * 2, MOST_DOUBTS)
                self.mode = BLOCK
            elif before == RAW:
                if self.short == 0:
                    self.mode = NORMAL
            elif self.short >= SHORT_CALLS:
                self.doubts = DOUBTS
                self.mode = RAW
        if self.mode == before:
            return False
        self.short = 0
        return True


@mypyc_attr(allow_interpreted_subclasses=True)
class AdaptivePolicy(RetakePolicy):
    """Raw where calls are short, block where they are long, normal where they differ.

    The hint of the author is not used, because users cannot predict whether a call blocks. The
    exception is a hint ``RAW``: such a call may be a computation, which must keep its P. A call
    counts as blocking if it is long, since a long call keeps its P whether it blocks or computes
    in the kernel. A site changes its mode only because of its own calls.

    The length of a call with a handoff does not tell how long it would be without one, because
    the goroutine that it waits for may have run on that P. So a site leaves ``block`` only after
    trying a call without a handoff.

    A call that is made raw may still wait for ever. So the monitor turns a raw call that lasts
    (``RESCUE_NS``) into a normal one, and then it is retaken like any other.
    """

    name: ClassVar[str] = "adaptive"
    wants_call_done: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.memories: dict[Site, Memory] = {}
        """Here and not with the sites, which all runtimes of a process share."""

    def memory(self, site: Site) -> Memory:
        """What the site has learnt under this policy."""
        memory = self.memories.get(site)
        if memory is None:
            memory = self.memories.setdefault(site, Memory())
        return memory

    def mode(self, site: Site) -> i64:
        """What the site has learnt; at first, normal."""
        return RAW if site.hint == RAW else self.memory(site).next_mode()

    def call_done(self, site: Site, mode: i64, enter_ns: i64, exit_ns: i64) -> None:
        """Learn, and tell of a change."""
        memory = self.memory(site)
        if memory.learn(mode, exit_ns - enter_ns):
            m = cast("M", get_current())
            transition(SITE_MODE, m, m.p, m.curg, TOLD[memory.mode], NO_TID)

    def begin_round(self, sched: Sched, now_ns: i64) -> bool:
        """As ``sysmon``, after raw calls that last were made normal ones."""
        for p in sched.allp:
            if p.status == P_RUNNING:
                rescue(sched, p, now_ns)
        return True


def rescue(sched: Sched, p: P, now_ns: i64) -> None:
    """Make a raw call that lasts a normal one, on behalf of the thread that is in it."""
    p.lock.acquire()
    m = p.m
    if (
        p.status == P_RUNNING
        and m is not None
        and m.raw_since_ns
        and now_ns - m.raw_since_ns > RESCUE_NS
    ):
        m.curg.status = G_SYSCALL
        if sched.rules.psyscall:
            p.status = P_SYSCALL
    p.lock.release()
