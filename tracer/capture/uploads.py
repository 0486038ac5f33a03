"""Dumps on their way to an object store, as the watch sees it: what waits, what became of it.

Example: ``pretake watch --to s3://bucket/traces``. A dump is whole at 03:15:09 and waits here; the
uploader (:mod:`tracer.capture.upload_process`), a process of its own, is given its name, and says
at 03:15:12 that it is at the store. If the store does not answer, the dump waits for the next
one, and both are tried then.

Nothing here waits: names go through a pipe that has room for all of them, and answers are read
when there are some. At most :data:`MOST_WAITING` dumps wait; beyond that the oldest is given up.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tracer.capture.privilege import NOBODY, capture_user
from tracer.errors import PretakeError

__all__ = ["MOST_WAITING", "Uploads", "shown"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_MAIN: Final = (
    f"import sys; sys.path.insert(0, {str(_ROOT)!r}); "
    "from tracer.capture.upload_process import main; main()"
)
MOST_WAITING: Final = 64
_AGAIN_S: Final = 600.0
"""What was not taken is tried again after so long if no other dump comes."""
_LAST_S: Final = 20.0
"""The end of a watch waits so long: who stops a service kills it after 30 s or more."""
_PIPE: Final = 1 << 16


def shown(url: str) -> str:
    """An address without the password that may stand in it."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


class Uploads:
    """Gives dumps to the uploader, and counts what it says.

    Make it while there is one thread and every right: the uploader reads what is root's.

    Args:
        url: where dumps go: what fsspec opens.
        folder: a descriptor of the folder of dumps.
        timeout_s: the store hangs when it has taken nothing for so long.
        waiting: names of dumps that are there already; those that the store has are left out.

    Attributes:
        counts: dumps by what became of them: ``uploaded``; ``failed``, once for each attempt;
            ``dropped``, which are not tried again, because they are gone or too many wait.
        pid: of the uploader.

    Raises:
        PretakeError: there is no such store, as far as this is known without asking it.
    """

    def __init__(
        self, url: str, folder: int, timeout_s: float, waiting: Iterable[str] = ()
    ) -> None:
        self.counts: Counter[str] = Counter(uploaded=0, failed=0, dropped=0)
        self._url = url
        self._waiting: dict[str, None] = {}
        self._asked: list[str] = []
        self._lines: list[str] = []
        self._text = b""
        self._failing = self._dead = False
        self._again_s = 0.0
        uid, gid = capture_user()
        given = {
            "url": url,
            "folder": folder,
            "timeout_s": timeout_s,
            "uid": uid,
            "gid": gid,
            "keep": uid == NOBODY,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _MAIN, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[folder],
            start_new_session=True,  # Ctrl-C is for the watch
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        line = self._process.stdout.readline()
        told: dict[str, Any] = json.loads(line) if line else {"problem": "its process has ended"}
        if "problem" in told:
            self.close()
            raise PretakeError(
                f"dumps cannot go to {shown(url)}: {told['problem']}", told.get("mend", "")
            )
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        for name in waiting:
            self._wait(name)

    @property
    def waiting(self) -> int:
        """How many dumps are not at the store yet."""
        return len(self._waiting)

    def add(self, name: str) -> None:
        """A dump is whole; it and all that wait are tried at the next step."""
        self._wait(name)
        self._again_s = 0.0

    def step(self) -> list[str]:
        """Hear what became of dumps, and ask for those that are due; call it often.

        Returns:
            Lines for whoever reads them. A store that takes nothing is told once, until it takes
            something again.
        """
        self._hear()
        if self._waiting and not self._asked and not self._dead:
            now_s = time.monotonic()
            if now_s >= self._again_s:
                self._again_s = now_s + _AGAIN_S
                self._ask()
        lines, self._lines = self._lines, []
        return lines

    def finish(self) -> list[str]:
        """The watch ends: try what waits once more, for some seconds."""
        lines = []
        last_s = time.monotonic() + _LAST_S
        self._again_s = 0.0
        lines += self.step()
        while self._asked and not self._dead and (left_s := last_s - time.monotonic()) > 0:
            select.select([self._out], [], [], left_s)
            lines += self.step()
        if self._waiting:
            lines.append(
                f"{len(self._waiting)} dumps are not known to be at {shown(self._url)}; the next "
                "watch with this folder sends them"
            )
        self.close()
        return lines

    def close(self) -> None:
        """Let go of the uploader, which ends when it is done with what it was asked for."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        # It may wait for a store: who began it does not wait for it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0 if not self._asked else 0.0)
        # Else Popen says that it still runs.
        self._process.returncode = self._process.returncode or 0

    def _wait(self, name: str) -> None:
        self._waiting[name] = None
        while len(self._waiting) > MOST_WAITING:
            self._waiting.pop(next(iter(self._waiting)))
            self.counts["dropped"] += 1

    def _ask(self) -> None:
        self._asked = list(self._waiting)
        try:
            # Far less than the pipe has room for, and it is empty: the one before is done.
            os.write(self._in, json.dumps(self._asked).encode() + b"\n")
        except OSError:
            self._end()

    def _hear(self) -> None:
        while not self._dead:
            try:
                piece = os.read(self._out, _PIPE)
            except BlockingIOError:
                return
            if not piece:
                self._end()
                return
            *lines, self._text = (self._text + piece).split(b"\n")
            for line in lines:
                self._heard(json.loads(line))

    def _heard(self, told: dict[str, Any]) -> None:
        name = told.get("name", "")
        if told.get("done"):
            self._asked = []
        elif "to" in told:
            self._waiting.pop(name, None)
            if self._failing:
                self._lines.append(f"{shown(self._url)} takes dumps again")
            self._failing = False
            self.counts["uploaded"] += 1
            self._lines.append(f"{name} is at {told['to']}, {told['bytes']:,} bytes")
        elif "gone" in told:
            self._waiting.pop(name, None)
            self.counts["dropped"] += 1
            self._lines.append(f"{name} does not go to {shown(self._url)}: {told['gone']}")
        else:
            self._fail(str(told.get("problem")))

    def _fail(self, problem: str) -> None:
        self.counts["failed"] += 1
        if not self._failing:
            self._lines.append(
                f"no dump could go to {shown(self._url)}: {problem}; they stay in the folder, and "
                "are tried again with the next one"
            )
        # Once: a store may be away all night.
        self._failing = True

    def _end(self) -> None:
        self._dead = True
        self._asked = []
        self._fail("the process that sends them has ended; no more are sent")
