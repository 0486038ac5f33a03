"""The byte code of a wheel, for an emulated machine.

bcc takes some seconds for each mode, and thirty times as long under emulation. So the guest has
the byte code that a wheel brings to a machine without a compiler, and fits it to its kernel.
"""

from __future__ import annotations

from pathlib import Path

from tests.kernels.foreign import bcc_environment
from tests.kernels.images import KERNELS, Image, fetch
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


def prepare(image: Image, machine: str) -> Path:
    """A folder that holds the byte code of these sources.

    Args:
        image: the kernel.
        machine: its architecture, as ``uname -m`` calls it.
    """
    if image.arch == "amd64":
        return byte_code(machine).parent
    # A wheel has one byte code for all kernels of an architecture: of the usual one's headers.
    usual = next(k for k in KERNELS if k.arch == image.arch and not k.flavour)
    return byte_code(machine, bcc_environment(fetch(usual))).parent
