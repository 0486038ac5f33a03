"""Holds a lease on a file: who opens it waits until standard input says that it may.

Says "ready" when it holds it, and "asked" when somebody opens the file.
"""

import fcntl
import os
import signal
import sys

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("ready", flush=True)
signal.sigwait([signal.SIGIO])
# Whoever opens the file sleeps by now, or is about to: it goes on when it is told to.
print("asked", flush=True)
input()
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
