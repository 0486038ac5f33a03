"""The emulated machine that a kernel is booted on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ONE_MAY_COME", "Machine"]


@dataclass(frozen=True)
class Machine:
    """The emulated machine.

    Args:
        cpus: as qemu takes it (``-smp``). Of two that run, each waits for the other while the host
            runs something else: the same takes twice as long.
        options: further words of the kernel's command line.
        memory: as qemu takes it.
        network: it can reach what this machine can.
    """

    cpus: str
    options: tuple[str, ...] = ()
    memory: str = "3G"
    network: bool = False


ONE_MAY_COME = Machine("2", ("maxcpus=1",))
"""One CPU; the kernel leaves the other alone until somebody writes to its file in /sys."""
