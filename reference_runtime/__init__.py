"""A Go-like scheduler whose Ps can be retaken by every policy of the discussion.

Example:
    >>> from reference_runtime import Channel, Runtime, go
    >>> async def main() -> object:
    ...     channel = Channel()
    ...     go(channel.send("hello"))
    ...     return await channel.recv()
    >>> Runtime(procs=1, policy="block").run(main)
    'hello'
"""

from __future__ import annotations

from reference_runtime.channels import (
    Channel,
    ChannelClosed,
    after,
    recv_case,
    select,
    send_case,
)
from reference_runtime.context import Context
from reference_runtime.current import COMPILED
from reference_runtime.deadlock import Deadlock
from reference_runtime.errors import DoubleWait, FileClosed
from reference_runtime.goroutines import (
    BLOCK,
    NORMAL,
    RAW,
    Site,
    checkpoint,
    close,
    go,
    gosched,
    nanosleep,
    poll,
    pread,
    read,
    sleep,
    spin,
    syscall,
    try_read,
    wait_readable,
    wait_writable,
    write,
)
from reference_runtime.locks import Counter
from reference_runtime.notify import notify_readable, notify_writable
from reference_runtime.runtime import Runtime
from reference_runtime.sleeper import Sleeper, Waker
from reference_runtime.sync import Mutex, WaitGroup

__all__ = [
    "BLOCK",
    "COMPILED",
    "NORMAL",
    "RAW",
    "Channel",
    "ChannelClosed",
    "Context",
    "Counter",
    "Deadlock",
    "DoubleWait",
    "FileClosed",
    "Mutex",
    "Runtime",
    "Site",
    "Sleeper",
    "WaitGroup",
    "Waker",
    "after",
    "checkpoint",
    "close",
    "go",
    "gosched",
    "nanosleep",
    "notify_readable",
    "notify_writable",
    "poll",
    "pread",
    "read",
    "recv_case",
    "select",
    "send_case",
    "sleep",
    "spin",
    "syscall",
    "try_read",
    "wait_readable",
    "wait_writable",
    "write",
]
