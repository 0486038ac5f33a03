"""Calls getppid, and i386's getpid (20) through the 32-bit entry."""

import ctypes
import mmap
import os
import sys

code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
# push rbx; mov eax, 20; int 0x80; pop rbx; ret
code.write(bytes.fromhex("53b814000000cd805bc3"))
getpid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
os.getppid()
for _ in range(int(sys.argv[1])):
    assert getpid() == os.getpid()
