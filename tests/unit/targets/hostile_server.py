"""The parser's server, whose children do what the file's path says, as if a file had them so."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable

from tracer.targets.jail import server
from tracer.targets.program_file import Bytes

__all__ = ["main"]


def _crash() -> bytes:
    return bytes(ctypes.string_at(0))


def _end() -> bytes:
    os._exit(3)


def _spin() -> bytes:
    while True:
        pass


def _nest() -> bytes:
    return b"[" * 60_000


_DEEDS: dict[str, Callable[[], bytes]] = {
    "crash": _crash,
    "end": _end,
    "spin": _spin,
    "nest": _nest,
    "much": lambda: bytes(600 << 20),
    "long": lambda: bytes(32 << 20),
    "empty": lambda: b"",
    "list": lambda: b"[]",
    "text": lambda: b"nobody is here",
    "runtime": lambda: b'{"runtime": "none"}',
}


def main(control_fd: int) -> None:
    """Serve; a path that names no deed is served honestly."""
    honest = server.answer_to

    def answer(asked: bytes, source: Bytes) -> bytes:
        path = json.loads(asked.partition(b"\0")[0])["path"]
        return _DEEDS[path]() if path in _DEEDS else honest(asked, source)

    server.answer_to = answer
    server.main(control_fd)
