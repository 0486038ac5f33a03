"""A piece of work in a child process, so that what it loads is gone when it is done.

Example: bcc brings LLVM, 100 MB. What it compiled is 400 kB, and a watch that had it compile lives
for weeks.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from typing import TypeVar

from tracer.errors import PretakeError

__all__ = ["apart"]

T = TypeVar("T")


def apart(work: Callable[[], T]) -> T:
    """What ``work`` returns, or raises, in a child; here, if this process has threads.

    Args:
        work: its result can be pickled.

    Raises:
        PretakeError: the child was killed, or gave itself up, as LLVM does.
    """
    if threading.active_count() > 1:
        # One of them may hold a lock, which nobody would release in the child.
        return work()
    reads, writes = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        # Nothing of the parent's own runs on in here, whatever happens.
        try:
            with os.fdopen(writes, "wb") as told:
                try:
                    done: tuple[bool, object] = True, work()
                except BaseException as error:
                    done = False, error
                told.write(pickle.dumps(done))
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as told:
        answer = told.read()
    os.waitpid(child, 0)
    try:
        worked, result = pickle.loads(answer)
    except (EOFError, pickle.UnpicklingError):
        raise PretakeError("the compiler was ended", "see 'pretake doctor'") from None
    if not worked:
        raise result
    found: T = result
    return found
