"""What is read of another process's memory: words, and the words that they point to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["Chain", "caught", "follow", "thread_numbers"]

Chain = tuple[int, Sequence[int]]
"""An address, and how far behind the word there the next one is, and so on."""

_WORD: Final = 8
_END: Final = 1 << 63
_WATCH_S: Final = 0.002
_OWN_NUMBERS: Final = b"NSpid:"


def follow(memory: int, chains: Iterable[Chain]) -> list[list[int]]:
    """Words of a process, each chain of them within microseconds.

    Args:
        memory: a descriptor of ``/proc/PID/mem``.
        chains: where to begin, and how to go on. Example: ``(p + 56, (64,))`` reads ``p.m``, and
            what is 64 bytes behind where that points.

    Returns:
        For each chain the words met, signed; fewer where one could not be read.
    """
    return [list(_follow(memory, address, offsets)) for address, offsets in chains]


def _follow(memory: int, address: int, offsets: Sequence[int]) -> Iterator[int]:
    for offset in (*offsets, None):
        if not 0 <= address < _END:
            return
        try:
            data = os.pread(memory, _WORD, address)
        except OSError:
            return
        if len(data) < _WORD:
            return
        value = int.from_bytes(data, "little", signed=True)
        yield value
        if offset is None:
            return
        address = value + offset


def caught(memory: int, groups: Sequence[Sequence[Chain]]) -> tuple[int, list[list[int]]] | None:
    """Wait, some 2 ms at most, until a word is not 0, and follow the chains that go with it.

    Args:
        memory: a descriptor of ``/proc/PID/mem``.
        groups: chains; where the first one of each begins is watched.

    Returns:
        Which group it was, and its words; None for none.
    """
    until_s = time.monotonic() + _WATCH_S
    while time.monotonic() < until_s:
        for number, group in enumerate(groups):
            if next(_follow(memory, group[0][0], ()), 0):
                return number, follow(memory, group)
    return None


def thread_numbers(pid: int) -> list[int]:
    """The threads of a process, by the numbers that it knows them by itself (gettid).

    Raises:
        OSError: it has ended, or may not be looked at.
    """
    tids = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    if not tids or len(_numbers(pid, tids[0])) <= 1:
        return tids
    # In a pid namespace: its own number is the last one.
    return [number for tid in tids for number in _numbers(pid, tid)[-1:]]


def _numbers(pid: int, tid: int) -> list[int]:
    """A thread's number in each pid namespace, from ours inwards; none where it has ended."""
    try:
        status = Path(f"/proc/{pid}/task/{tid}/status").read_bytes()
    except OSError:
        return []
    at = status.find(_OWN_NUMBERS)
    line = status[at + len(_OWN_NUMBERS) :].partition(b"\n")[0] if at >= 0 else b""
    return [int(word) for word in line.split()]
