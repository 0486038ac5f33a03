"""Makes and ends COUNT threads, a hundred at a time.

Usage: many_threads.py COUNT
"""

import os
import sys
import threading
from pathlib import Path

left = int(sys.argv[1])
while left:
    threads = [threading.Thread(target=int) for _ in range(min(left, 100))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # One that is joined may still wait for a CPU on which it ends.
    while len(list(Path("/proc/self/task").iterdir())) > 1:
        os.sched_yield()
    left -= len(threads)
