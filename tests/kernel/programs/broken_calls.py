"""Reads, and polls, that signals break off when the test sees the program sleep in one.

Arguments: what a signal does (``restarts``: its handler runs and the call begins again, ``fails``:
it fails with EINTR after the handler, ``stops``: SIGSTOP and SIGCONT, without a handler), and how
many calls. A line on standard output comes before each call and from each handler; a line on
standard input ends a call.
"""

import os
import select
import signal
import sys

how, calls = sys.argv[1], int(sys.argv[2])
if how != "stops":
    signal.signal(signal.SIGUSR1, lambda _signo, _frame: None)
    # The handler in C writes the signal's number, 10: a new line, by a call inside of the read.
    os.set_blocking(1, False)
    signal.set_wakeup_fd(1)
    signal.siginterrupt(signal.SIGUSR1, how == "fails")
poll = select.poll()
poll.register(0, select.POLLIN)
for number in range(calls):
    os.write(1, b"%d\n" % number)
    if how == "stops" and number % 2:
        poll.poll(600_000)
    os.read(0, 1)
