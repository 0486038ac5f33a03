"""Run a program: ``Runtime(procs=2, policy="block").run(main)``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from reference_runtime import runq
from reference_runtime.deadlock import TimeLimit, describe
from reference_runtime.gmp import (
    FORCE_PREEMPT_NS,
    MAX_THREADS,
    PREEMPT_ASYNC,
    PREEMPT_COOPERATIVE,
    PREEMPT_OFF,
    Goroutine,
    Sched,
)
from reference_runtime.host import FOR_EVER, Host
from reference_runtime.like import LEAN, rules_like
from reference_runtime.policies import make_policy
from reference_runtime.policies.base import RetakePolicy
from reference_runtime.processors import stop_run
from reference_runtime.real_host import RealHost
from reference_runtime.record import Record
from reference_runtime.scheduler import join, start
from tracer.errors import PretakeError

PREEMPTIONS: dict[str, int] = {
    "async": PREEMPT_ASYNC,
    "cooperative": PREEMPT_COOPERATIVE,
    "asyncpreemptoff": PREEMPT_COOPERATIVE,
    "off": PREEMPT_OFF,
}
"""Ways of preemption by name."""
MOST_PROCS = 1 << 16
"""A slip of the hand (``--procs 999999999``) would take all memory, deaf to Ctrl-C meanwhile."""
DEFAULT_QUEUE_CAPACITY = 256
"""Of a P's local queue, as in Go."""


class Runtime:
    """A scheduler on a host, for one program after another.

    Args:
        procs: number of Ps, GOMAXPROCS; the number of CPUs where None.
        policy: a retake policy, or its name.
        host: the machine; this one where None.
        queue_capacity: of each P's local queue, at least 2.
        preempt: ``async`` as Go from 1.14, ``cooperative`` as before it, or ``off``.
            ``asyncpreemptoff`` is Go's own word (GODEBUG) for ``cooperative``. As ``like`` where
            None.
        time_slice_ns: how long a goroutine may run before it is asked to stop.
        max_threads: how many threads run goroutines at most (Go: debug.SetMaxThreads).
        like: like which Go it decides, of :data:`reference_runtime.like.LIKE`.

    Raises:
        PretakeError: no such policy, preemption or rules, or a count out of range.

    Example:
        >>> async def main() -> int:
        ...     return 42
        >>> Runtime(procs=1).run(main)
        42
    """

    def __init__(
        self,
        procs: int | None = None,
        policy: RetakePolicy | str = "sysmon",
        host: Host | None = None,
        queue_capacity: int = DEFAULT_QUEUE_CAPACITY,
        preempt: str | None = None,
        time_slice_ns: int = FORCE_PREEMPT_NS,
        max_threads: int = MAX_THREADS,
        like: str = LEAN.name,
    ) -> None:
        self.rules = rules_like(like)
        if preempt is None:
            preempt = self.rules.preempt
        if procs is None:
            procs = os.cpu_count() or 1
        if not 1 <= procs <= MOST_PROCS:
            mend = f"give 1 to {MOST_PROCS} (--procs)"
            raise PretakeError(f"{procs} is no number of Ps", mend)
        if queue_capacity < 2:
            raise PretakeError(f"a queue of {queue_capacity} is too short", "give 2 or more")
        if preempt not in PREEMPTIONS:
            raise PretakeError(
                f"no preemption is called {preempt!r}", f"choose one of {', '.join(PREEMPTIONS)}"
            )
        if time_slice_ns < 1:
            raise PretakeError(f"a time slice of {time_slice_ns} ns is none", "give 1 or more")
        if max_threads < 1:
            raise PretakeError(f"{max_threads} threads are too few", "give 1 or more")
        self.max_threads = max_threads
        self.running = False
        self.preempt = preempt
        self.time_slice_ns = time_slice_ns
        self.procs = procs
        self.policy = make_policy(policy) if isinstance(policy, str) else policy
        self.host = RealHost() if host is None else host
        self.queue_capacity = queue_capacity
        self.record = Record()

    def run(
        self,
        main: Callable[..., Goroutine],
        *args: object,
        limit_ns: int = FOR_EVER,
        limit_ends_run: bool = False,
    ) -> object:
        """Run ``main(*args)`` as the first goroutine until it returns.

        Goroutines that are left then are abandoned, as in Go. Loops without an end
        (``goroutines.endless_loop``) are ended after ``limit_ns``, or by the end of the run; with
        ``limit_ends_run`` the whole run is over then.

        Returns:
            What ``main`` returns.

        Raises:
            Deadlock: no goroutine can ever run again.
            TimeLimit: ``limit_ns`` are over, with ``limit_ends_run``.
            ThreadLimit: there are as many threads as may be, or as the machine takes.
            PretakeError: this runtime runs a program already.
            BaseException: what a goroutine raised, with its traceback and a note of its name.
        """
        if self.running:
            raise PretakeError(
                "this runtime runs a program already", "make another Runtime for the second"
            )
        self.running = True
        try:
            return self.run_alone(main, args, limit_ns, limit_ends_run)
        finally:
            self.running = False

    def run_alone(
        self,
        main: Callable[..., Goroutine],
        args: tuple[object, ...],
        limit_ns: int,
        limit_ends_run: bool,
    ) -> object:
        """As :meth:`run`."""
        self.record = Record()
        sched = Sched(
            self.host,
            self.policy,
            self.procs,
            self.queue_capacity,
            self.record,
            PREEMPTIONS[self.preempt],
            self.time_slice_ns,
            self.max_threads,
            self.rules,
        )
        self.host.end_loops(False)
        result: list[object] = []

        async def first() -> None:
            result.append(await main(*args))  # type: ignore[misc]

        self.policy.start(sched)
        start(sched, first(), getattr(main, "__name__", "main"))
        try:
            if not self.host.wait_for_end(sched.finished, limit_ns):
                if limit_ends_run:
                    gs = [describe(g) for g in runq.all_gs(sched)]
                    stop_run(sched, TimeLimit(limit_ns, gs))
                self.host.end_loops(True)
                self.host.wait_for_end(sched.finished)
        except BaseException as interrupt:
            stop_run(sched, interrupt)
        join(sched)
        if isinstance(self.host, RealHost):
            self.host.forget_raised()
        self.policy.stop(sched)
        self.host.close()
        if sched.failure is not None:
            raise sched.failure
        return result[0]

    def write_witness(self, path: Path) -> None:
        """Write the last run's own record of its retakes to ``path``."""
        self.record.write(path)
