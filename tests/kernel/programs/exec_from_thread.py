"""A second thread execs: the kernel ends the first and gives its id to the new program."""

import os
import sys
import threading

PROGRAM = "import os; r, w = os.pipe(); os.write(w, b'x'); os.read(r, 1); os.getppid()"
thread = threading.Thread(target=os.execv, args=(sys.executable, [sys.executable, "-c", PROGRAM]))
thread.start()
thread.join()
