"""Runs a program that may not open perf events, as where kernel.perf_event_paranoid is above 2.

``python denied.py PROGRAM …`` becomes PROGRAM, with perf_event_open failing with EACCES by
seccomp: the setting itself is the whole machine's, and only Debian's kernels have such a value.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def deny() -> None:
    """From here on perf_event_open fails in this process and all that it becomes."""
    number = PERF_EVENT_OPEN[os.uname().machine]
    rules = [
        (_LOAD, 0, 0, 0),
        (_JUMP_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _ERRNO | errno.EACCES),
        (_RETURN, 0, 0, _ALLOW),
    ]
    text = b"".join(struct.pack("=HBBI", *rule) for rule in rules)
    program = _Program(len(rules), text)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    deny()
    os.execv(sys.argv[1], sys.argv[1:])
