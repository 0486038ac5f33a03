"""Has a child that never sleeps before it reads a second line of input, and ends when it has.

It says the moment before the child was made, and the child's process id.
"""

import os
import select
import sys
import time

before_ns = time.monotonic_ns()
child = os.fork()
if child == 0:
    print(before_ns, os.getpid(), flush=True)
    while not select.select([0], [], [], 0)[0]:
        pass
    os.read(0, 1)  # the first line: it is there
    os.read(0, 1)
    os._exit(0)
os.waitpid(child, 0)
sys.exit()
