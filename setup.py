"""Compile the reference scheduler, and the pass of the analysis, with mypyc.

Everything else is in pyproject.toml. ``PRETAKE_NO_COMPILE=1`` leaves both interpreted,
``PRETAKE_BUILD=engine`` builds the pass alone and ``PRETAKE_BUILD=runtime`` the scheduler alone.
Without a compiler or mypyc the package works all the same, only slower and with nothing for a
uprobe to stand on.
"""

from __future__ import annotations

import os
import sys
import sysconfig

from setuptools import Extension, setup  # type: ignore[import-untyped]

COMPILED_MODULES = [
    f"reference_runtime/{name}.py"
    for name in (
        "current",
        "host",
        "locks",
        "like",
        "polldesc",
        "gmp",
        "transitions",
        "latencies",
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
        "policies/upcall",
        "scheduler",
        "syscalls",
        "goroutines",
        "channels",
        "sync",
        "context",
        "notify",
        "sleeper",
        "knowing",
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
        "sim/descriptors",
        "sim/sim_stopper",
        "sim/sim_host",
    )
]

PASS_MODULES = [
    f"analysis/ptime/engine/{name}.py"
    for name in (
        "rows",
        "words",
        "tids",
        "moves",
        "beliefs",
        "looks",
        "owners",
        "state",
        "sums",
        "holds",
        "stops",
        "places",
        "account",
        "noted",
        "episodes",
    )
]


def extensions() -> list[Extension]:
    """The C modules, and both groups of compiled modules, each as one library."""
    wanted = os.environ.get("PRETAKE_BUILD", "runtime engine").split()
    compiled = os.environ.get("PRETAKE_NO_COMPILE") != "1"
    made: list[Extension] = []
    if "runtime" in wanted and (compiled or os.environ.get("PRETAKE_NO_NATIVE") != "1"):
        made += c_modules()
    if not compiled:
        return made
    try:
        from mypyc.build import mypycify
    except ImportError as missing:
        print(f"pretake: everything stays interpreted: {missing}", file=sys.stderr)
        return made
    if "runtime" in wanted:
        # Debug level 2: the tracer takes the fields' offsets from DWARF, and level 1 has no types.
        scheduler = mypycify(
            COMPILED_MODULES, opt_level="3", debug_level="2", group_name="reference_runtime"
        )
        for extension in scheduler:
            # A nop in front: Linux emulates it, where it would have to single-step another
            # instruction under a uprobe, which takes seven times as long. Of one byte, for that is
            # emulated by each kernel that pretake runs on: 0.53 us. One of five bytes takes
            # 0.41 us on 6.18, and is single-stepped by older ones, for 3.9 us.
            extension.extra_compile_args.append("-fpatchable-function-entry=1")
            if sysconfig.get_config_var("Py_GIL_DISABLED"):
                # gcc 12 takes its own inlined reads of reference counts for reads of nothing.
                extension.extra_compile_args.append("-Wno-error")
        made += scheduler
    if "engine" in wanted:
        # A library of its own: whoever analyses a trace loads no scheduler.
        engine = mypycify(PASS_MODULES, opt_level="3", group_name="analysis_ptime")
        for extension in engine:
            # Nothing replaces its functions, as a probe of the scheduler's may: they are inlined.
            extension.extra_compile_args += [
                "-fno-semantic-interposition",
                # What reads a number is small but for the path on which it fails, by which gcc
                # judges whether to inline it.
                *("--param", "max-inline-insns-auto=120", "--param", "inline-unit-growth=200"),
            ]
        made += engine
    return made


def c_modules() -> list[Extension]:
    """The C module of CPU kernels, and that of perf switch events."""
    native = Extension(
        "reference_runtime._native",
        [f"reference_runtime/{name}.c" for name in ("_native", "_preempt", "_lines")],
        depends=["reference_runtime/_preempt.h", "reference_runtime/_slot.h"],
        extra_compile_args=["-g", "-O3"],
        optional=True,
    )
    switches = Extension(
        "reference_runtime._switches",
        ["reference_runtime/_switches.c"],
        extra_compile_args=["-g", "-O3"],
        optional=True,
    )
    return [native, switches]


setup(ext_modules=extensions())
