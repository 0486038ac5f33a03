"""Echo over loopback TCP, as gVisor's netstack does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reference_runtime.goroutines import (
    BLOCK,
    RAW,
    Site,
    current_host,
    go,
    gosched,
    poll,
    spin,
    try_read,
    wait_readable,
    write,
)
from reference_runtime.latencies import Latencies
from reference_runtime.locks import Counter
from reference_runtime.sync import WaitGroup
from reference_runtime.workloads.base import Result, Workload
from reference_runtime.workloads.latency import distribution
from tracer.errors import PretakeError

POLL = Site("echo.poll", BLOCK)
WRITE = Site("echo.write", RAW)


@dataclass(kw_only=True)
class Echo(Workload):
    """One client, one server: a raw read first, and only after EAGAIN a poll that will block.

    A round is a round trip of one message.
    """

    name: ClassVar[str] = "echo"
    message_bytes: int = 1
    poller: bool = False
    """Wait with the runtime's network poller instead of one blocked thread per descriptor."""
    busy: int = 0
    """So many goroutines that use the CPU meanwhile, 100 µs at a time: ``busy_slices`` of them."""

    def check(self, policy: str, procs: int) -> None:
        """With ``raw`` the client keeps its P while it waits for the server.

        If the server is in the queue of that P, another one has to steal it, and none does that
        is busy.
        """
        wanted = 2 + self.busy
        if policy == "raw" and procs < wanted and not self.poller:
            raise PretakeError(
                f"echo under policy raw may wait for ever with {procs} P", f"give --procs {wanted}"
            )

    async def main(self) -> Result:
        """Play the client; the server is a goroutine of the same program."""
        host = current_host()
        client, server = host.tcp_pair()
        self.slices = Counter()
        done = WaitGroup(1)
        go(self.serve(server, done), "server")
        for _ in range(self.busy):
            go(self.use_cpu(), "busy")
        message = b"x" * self.message_bytes
        times_ns = Latencies()
        begin_ns = sent_ns = host.nanotime()
        while not self.over(len(times_ns), sent_ns, begin_ns):
            await write(client, message, WRITE)
            left = self.message_bytes
            while left:
                left -= len(await self.receive(client, left))
            now_ns = host.nanotime()
            times_ns.append(now_ns - sent_ns)
            sent_ns = now_ns
        host.close_fd(client)
        await done.wait()
        return {
            "rounds": len(times_ns),
            "round_trip_ns": distribution(times_ns),
            "busy_slices": self.slices.value if self.busy else None,
        }

    async def serve(self, fd: int, done: WaitGroup) -> None:
        """Send back what comes, until the client closes."""
        while data := await self.receive(fd, 65536):
            await write(fd, data, WRITE)
        current_host().close_fd(fd)
        done.done()

    async def receive(self, fd: int, count: int) -> bytes:
        """Some bytes; none at the end."""
        while (data := try_read(fd, count)) is None:
            if self.poller:
                await wait_readable(fd)
            else:
                await poll(fd, site=POLL)
        return data

    async def use_cpu(self) -> None:
        """A busy neighbour, in native code without the GIL."""
        while True:
            await spin(100_000)
            self.slices.add(1)
            await gosched()
