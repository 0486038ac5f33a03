"""Maps a file as code, and tells for each line on its input the bytes that are there, in hex.

mapped.py FILE OFFSET COUNT
"""

import mmap
import sys
from pathlib import Path

offset, count = int(sys.argv[2]), int(sys.argv[3])
with Path(sys.argv[1]).open("rb") as file:
    code = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
for _ in iter(sys.stdin.readline, ""):
    print(code[offset : offset + count].hex(), flush=True)
