"""Reads of a file: calls that nearly always return at once, and cannot be polled for."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from typing import ClassVar

from reference_runtime.goroutines import Site, current_host, go, pread
from reference_runtime.latencies import Latencies
from reference_runtime.sync import WaitGroup
from reference_runtime.workloads.base import Result, Workload
from reference_runtime.workloads.latency import distribution

READ = Site("files.pread")


@dataclass(kw_only=True)
class Files(Workload):
    """Random reads of a file in the page cache, by several goroutines.

    A round is one read.
    """

    name: ClassVar[str] = "files"
    not_zero = frozenset({"read_bytes"})
    readers: int = 4
    file_bytes: int = 1 << 22
    read_bytes: int = 4096

    async def main(self) -> Result:
        """Write the file, then read."""
        host = current_host()
        self.times_ns = Latencies()
        blocks = max(self.file_bytes // self.read_bytes, 1)
        with tempfile.TemporaryFile() as file:
            file.write(bytes(blocks * self.read_bytes))
            file.flush()
            self.begin_ns = host.nanotime()
            running = WaitGroup(self.readers)
            for reader in range(self.readers):
                go(self.read(reader, file.fileno(), blocks, running), f"reader {reader}")
            await running.wait()
        return {"rounds": len(self.times_ns), "read_ns": distribution(self.times_ns)}

    async def read(self, reader: int, fd: int, blocks: int, running: WaitGroup) -> None:
        """Read blocks that chance chooses."""
        host = current_host()
        chance = random.Random(f"{self.seed}/{reader}")
        times_ns = self.times_ns
        now_ns = host.nanotime()
        while not self.over(len(times_ns), now_ns, self.begin_ns):
            begin_ns = host.nanotime()
            offset = chance.randrange(blocks) * self.read_bytes
            await pread(fd, self.read_bytes, offset, READ)
            now_ns = host.nanotime()
            times_ns.append(now_ns - begin_ns)
        running.done()
