"""Runs until its standard input ends, with THREADS threads blocked in a read; then all end.

Usage: gated.py THREADS. Says "ready" on standard output when all of them are blocked.
"""

import os
import sys
import threading
from pathlib import Path

count = int(sys.argv[1])
reader, writer = os.pipe()
threads = [threading.Thread(target=os.read, args=(reader, 1)) for _ in range(count)]
for thread in threads:
    thread.start()
    while not Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().startswith("0 "):
        pass
print("ready", flush=True)
sys.stdin.read()
os.write(writer, b"x" * count)
for thread in threads:
    thread.join()
