"""A host, real or simulated, for tests that ask both the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from reference_runtime.gmp import G
from reference_runtime.host import Host
from reference_runtime.polldesc import PollWaiter
from reference_runtime.sim.sim_host import SimHost

__all__ = ["MS", "NO_FD", "Machine", "waiter"]

MS = 1_000_000
NO_FD = 1_000_000


class Machine:
    """A host, and what differs in making things for it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.kept: list[Any] = []

    def run(self, *bodies: Callable[[], object]) -> list[object]:
        """Run each body on a thread of its own; their results, or the first that was raised."""
        results: list[object] = [None] * len(bodies)
        ended = [self.host.new_note() for _ in bodies]

        def start(number: int) -> None:
            def body() -> None:
                try:
                    results[number] = bodies[number]()
                except BaseException as error:
                    results[number] = error
                ended[number].wakeup()

            self.host.start_thread(body, f"thread {number}")

        for number in range(len(bodies)):
            start(number)
        for note in ended:
            self.host.wait_for_end(note)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def regular_file(self) -> int:
        """A descriptor of a regular file of 8 zero bytes."""
        if isinstance(self.host, SimHost):
            return self.host.open_file(0)
        file = tempfile.TemporaryFile()  # noqa: SIM115  it is closed with the machine
        file.write(bytes(8))
        file.flush()
        self.kept.append(file)
        return file.fileno()


def waiter(goid: int = 1) -> PollWaiter:
    return PollWaiter(G(goid, None, iter(()), "waiter"))
