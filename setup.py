"""Compile the reference scheduler with mypyc; everything else is in pyproject.toml.

``PRETAKE_NO_COMPILE=1`` leaves the scheduler interpreted. So does a missing compiler or mypyc:
the package works without, only slower and with nothing for a uprobe to stand on.
"""

from __future__ import annotations

import os
import sys

from setuptools import Extension, setup  # type: ignore[import-untyped]

COMPILED_MODULES = [
    f"reference_runtime/{name}.py"
    for name in (
        "current",
        "host",
        "gmp",
        "transitions",
        "record",
        "timers",
        "runq",
        "deadlock",
        "switch",
        "policies/base",
        "policies/sysmon",
        "policies/block",
        "policies/raw",
        "policies/sched_out",
        "policies/ums",
        "policies/thread_state",
        "policies/adaptive",
        "stops",
        "processors",
        "ready",
        "netpoll",
        "preempt",
        "stopped",
        "slices",
        "world",
        "monitor",
        "policies/integrated",
        "scheduler",
        "syscalls",
        "goroutines",
        "channels",
        "sync",
        "switch_watch",
        "stopping",
        "real_host",
        "real_stopper",
        "sim/costs",
        "sim/gil",
        "sim/files",
        "sim/observe",
        "sim/oracle",
        "sim/threads",
        "sim/cpus",
        "sim/machine",
        "sim/locks",
        "sim/switches",
        "sim/sim_stopper",
        "sim/sim_host",
    )
]


def extensions() -> list[Extension]:
    """The C module of CPU kernels, and the scheduler as one library of compiled modules."""
    native = Extension(
        "reference_runtime._native",
        ["reference_runtime/_native.c", "reference_runtime/_preempt.c"],
        depends=["reference_runtime/_preempt.h"],
        extra_compile_args=["-g", "-O3"],
        optional=True,
    )
    switches = Extension(
        "reference_runtime._switches",
        ["reference_runtime/_switches.c"],
        extra_compile_args=["-g", "-O3"],
        optional=True,
    )
    if os.environ.get("PRETAKE_NO_COMPILE") == "1":
        return [native, switches] if os.environ.get("PRETAKE_NO_NATIVE") != "1" else []
    try:
        from mypyc.build import mypycify
    except ImportError as missing:
        print(f"pretake: the scheduler stays interpreted: {missing}", file=sys.stderr)
        return [native, switches]
    # Debug level 2: the tracer takes the fields' offsets from DWARF, and level 1 has no types.
    compiled = mypycify(
        COMPILED_MODULES, opt_level="3", debug_level="2", group_name="reference_runtime"
    )
    for extension in compiled:
        # A nop in front: Linux emulates it, where it would have to single-step another instruction
        # under a uprobe, which takes five times as long.
        extension.extra_compile_args.append("-fpatchable-function-entry=1")
    return [native, switches, *compiled]


setup(ext_modules=extensions())
