"""The byte code of a wheel, for an emulated machine.

bcc takes some seconds for each mode, and thirty times as long under emulation. So the guest has
the byte code that a wheel brings to a machine without a compiler, and fits it to its kernel.
"""

from __future__ import annotations

from pathlib import Path

from tools.wheels import byte_code
from tracer.kernel.fitting import FORCE

__all__ = ["prepare", "use"]


def use(tree: Path | str) -> str:
    """A shell command for the guest: it uses what :func:`prepare` made, and nothing else.

    Args:
        tree: where the project's files are there.
    """
    forced = f"rm -rf /var/cache/pretake && export {FORCE}=shipped"
    return f"cp /out/inputs/* {tree}/tracer/bpf/ && {forced}"


def prepare(machine: str) -> Path:
    """A folder that holds the byte code of these sources.

    Args:
        machine: its architecture, as ``uname -m`` calls it.
    """
    return byte_code(machine).parent
