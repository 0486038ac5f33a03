"""What a command that runs for weeks asks of the libraries below it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_LARGE = """
import ctypes, sys
import numpy as np
from pretake.libraries import give_back_what_is_freed

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
if sys.argv[1] == "given back":
    give_back_what_is_freed()
large = np.ones(30 << 20, np.uint8)
del large
before = mallinfo().hblkhd
large = np.ones(8 << 20, np.uint8)
print(mallinfo().hblkhd - before >= 8 << 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc's malloc")
@pytest.mark.parametrize(("asked", "mapped"), [("given back", "True"), ("kept", "False")])
def test_a_large_array_is_a_mapping_of_its_own_also_after_a_larger_one(
    asked: str, mapped: str
) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _LARGE, asked], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == mapped
