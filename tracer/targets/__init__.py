"""How to read a runtime's P, M and G: which runtime a program has, and where it keeps them."""

from tracer.targets.binary import RuntimeBinary
from tracer.targets.find import runtime_of, runtimes_of_process

__all__ = ["RuntimeBinary", "runtime_of", "runtimes_of_process"]
