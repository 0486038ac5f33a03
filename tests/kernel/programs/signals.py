"""Sends itself SIGURG by tgkill, COUNT times, and once to a thread that does not exist.

Usage: signals.py COUNT
"""

import ctypes
import os
import signal
import sys

NR_TGKILL = 234
libc = ctypes.CDLL(None)
signal.signal(signal.SIGURG, lambda *_: None)
for _ in range(int(sys.argv[1])):
    libc.syscall(NR_TGKILL, os.getpid(), os.getpid(), int(signal.SIGURG))
# No process has an id this high (pid_max is at most 2**22).
libc.syscall(NR_TGKILL, os.getpid(), 2**22 + 1, int(signal.SIGURG))
