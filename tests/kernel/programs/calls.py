"""Makes exactly COUNT getppid calls, at RATE a second (0: as fast as it can).

Usage: calls.py COUNT RATE
"""

import os
import sys
import time

count, rate = int(sys.argv[1]), int(sys.argv[2])
batch = min(1000, count)
call = os.getppid
begin = time.monotonic()
done = 0
while done < count:
    for _ in range(min(batch, count - done)):
        call()
    done += min(batch, count - done)
    if rate:
        # A pace, not a wait for anything.
        time.sleep(max(0.0, done / rate - (time.monotonic() - begin)))
