"""How to read a runtime's P, M and G: which runtime a program has, and where it keeps them."""

from tracer.targets.binary import NoRuntime, RuntimeBinary
from tracer.targets.find import look_at, runtime_of, runtimes_of_process

__all__ = ["NoRuntime", "RuntimeBinary", "look_at", "runtime_of", "runtimes_of_process"]
