"""A second witness of who begins, execs and ends: the kernel's process connector."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections import Counter
from types import TracebackType
from typing import Final

__all__ = ["Families"]

# linux/netlink.h, linux/connector.h, linux/cn_proc.h
_NETLINK_CONNECTOR: Final = 11
_CN_IDX_PROC, _CN_VAL_PROC = 1, 1
_PROC_CN_MCAST_LISTEN: Final = 1
_SO_RCVBUFFORCE: Final = 33
_HEADERS: Final = 16 + 20  # nlmsghdr, cn_msg
_FORK, _EXEC, _EXIT = 1, 2, 0x80000000
_ROOM: Final = 256 << 20


class Families:
    """Listens, while ``with`` lasts, to what every task of the machine does.

    Attributes:
        events: ``(kind, tid, tgid, parent's tgid)`` in order; the kind is ``fork`` (a thread is
            forked too), ``exec`` or ``exit``, the last number is 0 but for a fork.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, int, int, int]] = []
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_CONNECTOR)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        self._socket.bind((0, _CN_IDX_PROC))
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Families:
        listen = struct.pack(
            "=IIIIHHI", _CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0, _PROC_CN_MCAST_LISTEN
        )
        head = struct.pack("=IHHII", 16 + len(listen), 3, 0, 0, os.getpid())
        self._socket.send(head + listen)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Its end is the last that it hears of.
        self._last = os.fork()
        if self._last == 0:
            os._exit(0)
        os.waitpid(self._last, 0)
        self._thread.join()
        self._socket.close()

    def of(self, root: int) -> Counter[tuple[str, int]]:
        """What a process and all that descend from it did: how often, by kind and thread."""
        family, told = {root}, Counter[tuple[str, int]]()
        for kind, tid, tgid, parent in self.events:
            if kind == "fork" and parent in family:
                family.add(tgid)
            elif kind == "fork" and tid == tgid != root:
                family.discard(tgid)  # a number that is another's by now
            if tgid in family:
                told[kind, tid] += 1
        return told

    def _listen(self) -> None:
        self._last = 0
        while True:
            # ENOBUFS, where it fell behind, ends the thread, and so the test.
            data = self._socket.recv(4096)
            what, _, _, *numbers = struct.unpack_from("=IIQIIII", data, _HEADERS)
            if what == _FORK:
                _, parent, tid, tgid = numbers
                self.events.append(("fork", tid, tgid, parent))
            elif what in (_EXEC, _EXIT):
                tid, tgid = numbers[:2]
                self.events.append(("exec" if what == _EXEC else "exit", tid, tgid, 0))
                if what == _EXIT and tid == self._last:
                    return
