"""The keeper: the process that keeps the capabilities which a capture needs later.

Example: a target execs a Go program 10 s after the capture began. The tracer has given up its
capabilities by then, but it has to inspect the new program. So it asks the keeper for a descriptor
of the program's file. The keeper answers five questions, and only about target processes:

``open``    a descriptor to read ``exe``, ``maps`` or one mapped file
``words``   8 bytes of memory here and there: where a Go library keeps its thread-local data, and
            to check assumed offsets (:mod:`tracer.targets.self_check`)
``caught``  the same, as soon as one of them is not 0
``threads`` the numbers by which the process knows its threads, for the same check
``probe``   put uprobes into one process, or with no places, take them out (:mod:`tracer.capture.
            keeper_probes`, which is not loaded for a capture without uprobes)

A process is a target if the BPF programs say so, or if it is the one the capture was started
for. Exception: a watch that looks for Go programs (``--go``) may open ``exe`` of any process, to
know whether it is one. The keeper runs as nobody, with the capabilities that its tracer names
(:mod:`tracer.capture.keeper`), and only Python's own library is loaded. It ends with the tracer,
however that ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from tracer.capture.capabilities import become
from tracer.capture.keeper_targets import Targets

if TYPE_CHECKING:
    from tracer.capture.keeper_probes import Probes

__all__ = ["main"]

_MESSAGE: Final = 1 << 16
_NOBODY: Final = 65534


def _serve(tracer: socket.socket, targets: Targets, probes: Probes | None) -> None:
    """Answer until the tracer is gone."""
    while True:
        if probes is not None:
            probes.wait_for(tracer.fileno())
        text, fds, _, _ = socket.recv_fds(tracer, _MESSAGE, 1)
        if not text:
            return
        reply: dict[str, Any] = {}
        opened: list[int] = []
        try:
            match json.loads(text):
                case {"open": str(name), "pid": int(pid)}:
                    opened.append(targets.open(pid, name))
                case {"words": list(chains), "pid": int(pid)}:
                    reply["words"] = targets.words(pid, chains)
                case {"caught": list(groups), "pid": int(pid)}:
                    reply["caught"] = targets.caught(pid, groups)
                case {"threads": True, "pid": int(pid)}:
                    reply["threads"] = targets.threads(pid)
                case {"probe": list(places), "pid": pid} if probes is not None:
                    probes.change(pid, fds, places)
                case _:
                    raise PermissionError(1, "this capture has no such thing")
        except OSError as error:
            reply["error"] = error.strerror or str(error)
        socket.send_fds(tracer, [json.dumps(reply).encode()], opened)
        for fd in (*fds, *opened):
            os.close(fd)


def main() -> None:
    """Take what the tracer gives, give up the rest, and serve."""
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signo, signal.SIG_IGN)
    tracer = socket.socket(fileno=int(sys.argv[1]))
    text, (storage, *programs), _, _ = socket.recv_fds(tracer, _MESSAGE, 64)
    given = json.loads(text)
    targets = Targets(given["pid"], storage, given["value_bytes"], given["any_program"])
    probes: Probes | None = None
    if programs:
        from tracer.capture.keeper_probes import Probes

        by_name = dict(zip(given["programs"], programs, strict=True))
        probes = Probes(targets, by_name, links=given["links"])
    become(_NOBODY, _NOBODY, keep=given["keep"])
    tracer.send(b"{}")
    _serve(tracer, targets, probes)
