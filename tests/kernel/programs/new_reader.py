"""Has a child that never sleeps until GO is there, and then reads a byte of input.

Usage: new_reader.py GO. It says the moment before the child was made, and the child's process id.
"""

import os
import sys
import time
from pathlib import Path

go = Path(sys.argv[1])
before_ns = time.monotonic_ns()
child = os.fork()
if child == 0:
    print(before_ns, os.getpid(), flush=True)
    while not go.exists():
        pass
    os.read(0, 1)
    os._exit(0)
os.waitpid(child, 0)
