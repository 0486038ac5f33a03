"""Blocks in a page fault, and then makes calls that do not block.

A child gives the page when the test, which saw this process sleep, writes a byte.
"""

import ctypes
import mmap
import os
import struct

NR_USERFAULTFD = 323
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
libc = ctypes.CDLL(None, use_errno=True)
page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
faults = libc.syscall(NR_USERFAULTFD, os.O_CLOEXEC)


def ask(request: int, *numbers: int) -> None:
    if libc.ioctl(faults, ctypes.c_ulong(request), struct.pack(f"={len(numbers)}Q", *numbers)):
        raise OSError(ctypes.get_errno(), "userfaultfd")


ask(UFFDIO_API, 0xAA, 0, 0)
ask(UFFDIO_REGISTER, address, mmap.PAGESIZE, 1, 0)
child = os.fork()
if child == 0:
    os.read(0, 1)
    ask(UFFDIO_ZEROPAGE, address, mmap.PAGESIZE, 0, 0)  # of the process that made it
    os._exit(0)
print(os.getpid(), flush=True)
assert ctypes.string_at(address, 1) == b"\0"
for _ in range(23):
    os.getppid()
os.waitpid(child, 0)
