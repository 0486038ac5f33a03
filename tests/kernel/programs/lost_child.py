"""Has a child that ends, tells its process id into the pipe TOLD, and ends when END is closed.

Usage: lost_child.py TOLD END
"""

import os
import sys
from pathlib import Path

child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
Path(sys.argv[1]).write_text(f"{child}\n")
Path(sys.argv[2]).read_text()
