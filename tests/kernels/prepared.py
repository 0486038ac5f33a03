"""The byte code of a wheel, for an emulated machine.

bcc takes some seconds for each mode, and thirty times as long under emulation. So the guest has
the byte code that a wheel brings to a machine without a compiler, and fits it to its kernel.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

from tools.wheels import ROOT, byte_code
from tracer.kernel.fitting import FORCE

__all__ = ["USE", "prepare"]

USE: Final = (
    f"cp /out/inputs/* {ROOT}/tracer/bpf/ && rm -rf /var/cache/pretake && export {FORCE}=shipped"
)
"""A shell command for the guest: it uses what :func:`prepare` made, and nothing else."""


def prepare() -> Path:
    """A folder that holds the byte code of these sources."""
    return byte_code(platform.machine()).parent
