"""Makes and ends COUNT threads, a hundred at a time.

Usage: many_threads.py COUNT
"""

import sys
import threading

left = int(sys.argv[1])
while left:
    threads = [threading.Thread(target=int) for _ in range(min(left, 100))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left -= len(threads)
