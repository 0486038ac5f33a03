"""Many idle connections: readiness first, a buffer only when there is something to read."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from reference_runtime.channels import Channel
from reference_runtime.goroutines import (
    RAW,
    Site,
    current_host,
    go,
    try_read,
    wait_readable,
    write,
)
from reference_runtime.latencies import Latencies
from reference_runtime.locks import Counter
from reference_runtime.sync import WaitGroup
from reference_runtime.workloads.base import Result, Workload
from reference_runtime.workloads.latency import distribution

WRITE = Site("readiness.write", RAW)


@dataclass(kw_only=True)
class Readiness(Workload):
    """Many connections of which one has something to say now and then (``wait_readable``).

    A round is one message; ``message_ns`` is from its writing to its being read. No goroutine
    holds a thread or a buffer while it waits: ``buffers`` tells how many were held at most.
    """

    name: ClassVar[str] = "readiness"
    not_zero = frozenset({"connections", "message_bytes"})
    connections: int = 100
    message_bytes: int = 64

    async def main(self) -> Result:
        """Play all clients."""
        host = current_host()
        chance = random.Random(self.seed)
        self.times_ns = Latencies()
        self.heard = Channel()
        self.sent_ns = [0] * self.connections
        self.held = Counter()
        pairs = [host.tcp_pair() for _ in range(self.connections)]
        closed = WaitGroup(self.connections)
        for number, (_, server) in enumerate(pairs):
            go(self.serve(number, server, closed), f"server {number}")
        message = b"x" * self.message_bytes
        rounds = 0
        begin_ns = now_ns = host.nanotime()
        while not self.over(rounds, now_ns, begin_ns):
            number = chance.randrange(self.connections)
            self.sent_ns[number] = host.nanotime()
            await write(pairs[number][0], message, WRITE)
            rounds += 1
            await self.heard.recv()
            now_ns = host.nanotime()
        for client, _ in pairs:
            host.close_fd(client)
        await closed.wait()
        return {
            "rounds": rounds,
            "message_ns": distribution(self.times_ns),
            "buffers": int(self.held.most),
        }

    async def serve(self, number: int, fd: int, closed: WaitGroup) -> None:
        """Wait, and only then read."""
        host = current_host()
        left = self.message_bytes
        while True:
            await wait_readable(fd)
            self.held.add(1)
            data = try_read(fd, left)
            self.held.add(-1)
            if data is None:
                continue
            if not data:
                break
            left -= len(data)
            if not left:
                self.times_ns.append(host.nanotime() - self.sent_ns[number])
                left = self.message_bytes
                await self.heard.send(None)
        host.close_fd(fd)
        closed.done()
