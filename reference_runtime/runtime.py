"""Run a program: ``Runtime(procs=2, policy="block").run(main)``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from reference_runtime.host import Host
from reference_runtime.policies import make_policy
from reference_runtime.policies.base import RetakePolicy
from reference_runtime.real_host import RealHost
from reference_runtime.record import Record
from reference_runtime.scheduler import Goroutine, Scheduler
from tracer.errors import PretakeError

DEFAULT_QUEUE_CAPACITY = 256
"""Of a P's local queue, as in Go."""


class Runtime:
    """A scheduler on a host, for one program after another.

    Args:
        procs: number of Ps, GOMAXPROCS; the number of CPUs where None.
        policy: a retake policy, or its name.
        host: the machine; this one where None.
        queue_capacity: of each P's local queue, at least 2.

    Raises:
        PretakeError: no such policy, or a count out of range.

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
    ) -> None:
        if procs is None:
            procs = os.cpu_count() or 1
        if procs < 1:
            raise PretakeError(f"{procs} is no number of Ps", "give 1 or more (--procs)")
        if queue_capacity < 2:
            raise PretakeError(f"a queue of {queue_capacity} is too short", "give 2 or more")
        self.procs = procs
        self.policy = make_policy(policy) if isinstance(policy, str) else policy
        self.host = RealHost() if host is None else host
        self.queue_capacity = queue_capacity
        self.record = Record()

    def run(self, main: Callable[..., Goroutine], *args: object) -> object:
        """Run ``main(*args)`` as the first goroutine until it returns.

        Goroutines that are left then are abandoned, as in Go.

        Returns:
            What ``main`` returns.

        Raises:
            Deadlock: no goroutine can ever run again.
            BaseException: what a goroutine raised, with its traceback and a note of its name.
        """
        self.record = Record()
        scheduler = Scheduler(self.host, self.policy, self.procs, self.queue_capacity, self.record)
        result: list[object] = []

        async def first() -> None:
            result.append(await main(*args))  # type: ignore[misc]

        self.policy.start(scheduler)
        scheduler.start(first(), getattr(main, "__name__", "main"))
        try:
            self.host.wait_for_end(scheduler.finished)
        except BaseException as interrupt:
            scheduler.stop(interrupt)
        scheduler.join()
        self.policy.stop(scheduler)
        self.host.close()
        if scheduler.failure is not None:
            raise scheduler.failure
        return result[0]

    def write_witness(self, path: Path) -> None:
        """Write the last run's own record of its retakes to ``path``."""
        self.record.write(path)
