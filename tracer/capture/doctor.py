"""What this machine can and cannot capture, and what to do about it.

Each check tries the thing itself instead of looking at a version number, and names one command or
change that helps.

Example:
    >>> [check.name for check in diagnose() if check.needed and not check.ok]
    []
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.capture.options import probe_defines
from tracer.capture.privilege import in_first_pid_namespace, may_load_bpf
from tracer.capture.programs import Programs
from tracer.errors import PretakeError
from tracer.kernel import features
from tracer.kernel.bcc_loader import (
    TRACEFS,
    find_headers,
    kernel_source,
    load_bcc,
    mount_tracefs,
    tracefs_mounted,
)
from tracer.kernel.btf import VMLINUX_BTF, kernel_btf
from tracer.kernel.compiler import OPTIONAL_TRACEPOINTS, TRACEPOINTS, UPROBE_PREFIXES
from tracer.kernel.fitting import source
from tracer.targets import NoRuntime, look_at
from tracer.targets.go import GoBinary

__all__ = ["Check", "diagnose", "fix", "of_binary"]

_PARANOID: Final = Path("/proc/sys/kernel/perf_event_paranoid")
_UPROBES: Final = Path("/sys/bus/event_source/devices/uprobe/type")
_KERNEL_MEND: Final = "run a kernel like Debian's or Ubuntu's, 5.15 or later"
_REFUSED_MEND: Final = (
    "run a kernel that was tried, as Debian 12's 6.1 (docs/where-it-runs.md tells all); the"
    " reference runtime alone is captured by 'pretake record --backend perf'"
)
_HERE: Final = "see 'pretake doctor'"
"""A mend that leads here, and so helps nobody who is here."""

MODES: Final = {
    "record": (probe_defines("none"), True),
    "live": ({"LIVE": 1, **probe_defines("none")}, True),
    "record --detail full --all-signals --host --no-stacks": (
        dict.fromkeys(("DETAIL_FULL", "ALL_SIGNALS", "HOST", "NO_STACKS"), 1)
        | probe_defines("none"),
        False,
    ),
    "record --calls exact": ({"CALLS_EXACT": 1, **probe_defines("none")}, False),
    "record --probes exact": (probe_defines("exact"), False),
    "record --probes both": (probe_defines("both"), False),
    "live --probes exact": ({"LIVE": 1, **probe_defines("exact")}, False),
    "live --pressure": ({"LIVE": 1, "LIVE_ROWS": 1, **probe_defines("none")}, False),
}
"""What the programs are compiled with, and whether a capture cannot do without, by what is run."""


@dataclass(frozen=True)
class Check:
    """One thing a capture needs, or is better with.

    Args:
        name: what it is.
        ok: whether it is there.
        detail: what was found.
        mend: what to do about it; empty if it is there.
        needed: whether ``pretake record`` cannot do without it.
    """

    name: str
    ok: bool
    detail: str
    mend: str = ""
    needed: bool = True


def diagnose(binary: Path | None = None) -> list[Check]:
    """Look at everything a capture needs.

    Args:
        binary: a program to look at too: whether its runtime can be read.

    Returns:
        Every check, in the order in which they should be mended. The last ones of the machine's
        own, one for each of :data:`MODES`, load every program, as a capture does.
    """
    checks = [
        _privilege(),
        _pid_namespace(),
        _btf(),
        _tracepoints(),
        _features(),
        _uprobes(),
        *_programs(),
        _tracefs(),
        _perf_level(),
        _jail(),
    ]
    able = all(check.ok for check in checks if check.needed)
    checks += [_mode(mode, able=able) for mode in MODES]
    if binary is not None:
        checks += of_binary(binary)
    return checks


def fix() -> list[str]:
    """Mend what can be mended without changing the system's set-up.

    Returns:
        What was done, one line each.

    Raises:
        PretakeError: something could not be done.
    """
    done, compiles = [], False
    if not tracefs_mounted():
        mount_tracefs()
        done.append(f"mounted tracefs at {TRACEFS}")
    with contextlib.suppress(PretakeError):
        compiles = not source().shipped
    if compiles:
        done.append(f"kernel headers for bcc are at {kernel_source()}")
    return done


def _privilege() -> Check:
    ok = may_load_bpf()
    who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    return Check(
        "privilege",
        ok,
        f"{who}, {'with' if ok else 'without'} CAP_BPF and CAP_PERFMON",
        "" if ok else "run it with sudo",
    )


def _pid_namespace() -> Check:
    ok = in_first_pid_namespace()
    detail = "the host's" if ok else "a container's own, which the kernel's probes do not tell"
    mend = "" if ok else "capture from the host, or run the container with --pid=host"
    return Check("process ids", ok, detail, mend)


def _btf() -> Check:
    ok = os.access(VMLINUX_BTF, os.R_OK)
    detail = f"{VMLINUX_BTF} ({'found' if ok else 'cannot be read'})"
    return Check("kernel BTF", ok, detail, "" if ok else _KERNEL_MEND)


def _tracepoints() -> Check:
    try:
        btf = kernel_btf()
    except PretakeError as error:
        return Check("tracepoints", False, error.problem, error.mend)
    missing = [name for name in TRACEPOINTS if not btf.tracepoint_arguments(name)]
    detail = f"no {', '.join(missing)}" if missing else f"all {len(TRACEPOINTS)}"
    ok = set(missing) <= set(OPTIONAL_TRACEPOINTS)
    return Check("tracepoints", ok, detail, "" if ok else _KERNEL_MEND)


def _uprobes() -> Check:
    ok = _UPROBES.exists()
    return Check(
        "uprobes",
        ok,
        "found" if ok else "this kernel has none, so a runtime's transitions are not captured",
        "" if ok else "run a kernel with CONFIG_UPROBE_EVENTS=y",
        needed=False,
    )


def _programs() -> Iterator[Check]:
    """Where the BPF programs come from, and, where they are compiled, what with."""
    try:
        found = source()
    except PretakeError as error:
        yield Check("BPF programs", False, error.problem, error.mend)
        return
    yield Check("BPF programs", True, found.told)
    if found.shipped:
        return
    bcc = load_bcc()
    yield Check("bcc", True, f"{bcc.__version__}, {Path(bcc.__file__ or '').parent}")
    trees = find_headers() or ()
    yield Check("kernel headers", True, " and ".join(str(tree) for tree in trees))


def _tracefs() -> Check:
    ok = tracefs_mounted()
    return Check(
        "tracefs",
        ok,
        f"{'mounted' if ok else 'not mounted'} at {TRACEFS}; only to compare with other tools",
        "" if ok else "pretake doctor --fix",
        needed=False,
    )


def _perf_level() -> Check:
    level = int(_PARANOID.read_text("utf-8")) if _PARANOID.exists() else 4
    ok = level <= 2
    return Check(
        "perf events without privilege",
        ok,
        f"kernel.perf_event_paranoid = {level}",
        "" if ok else "sysctl kernel.perf_event_paranoid=2",
        needed=False,
    )


def _jail() -> Check:
    """Whether a stranger's file can be read at all: this interpreter's own, by the parser."""
    try:
        look_at(Path("/proc/self/exe"))
    except PretakeError as error:
        return Check("parser of programs", False, error.problem, error.mend, needed=False)
    who = "nobody" if os.geteuid() == 0 else f"user {os.geteuid()}"
    detail = f"works, as {who} under seccomp"
    return Check("parser of programs", True, detail, needed=False)


def _features() -> Check:
    try:
        lacks = features.lacking()
    except (PretakeError, KeyError) as error:
        mend = error.mend if isinstance(error, PretakeError) else _KERNEL_MEND
        return Check("BPF features", False, f"not tried: {error}", mend)
    detail = f"no {', no '.join(lacks)}" if lacks else "all"
    return Check("BPF features", not lacks, detail, features.MEND if lacks else "")


def _mode(mode: str, able: bool) -> Check:
    """Whether this kernel takes every program of a mode."""
    name, (defines, needed) = f"pretake {mode}", MODES[mode]
    if not able:
        return Check(name, False, "not tried", "mend the above first", needed)
    try:
        programs = Programs(None, defines=defines)
    except PretakeError as error:
        return Check(name, False, error.problem, _mend(error), needed)
    try:
        attached = programs.probes.attach()
        programs.followed.prepare()
        # The reference runtime has probes always, Go's where they were asked for.
        asked = UPROBE_PREFIXES if "--probes" in mode else ("reference_",)
        count = len(programs.loaded.uprobe_programs(asked))
    except PretakeError as error:
        return Check(name, False, error.problem, _mend(error), needed)
    else:
        size = programs.loaded.map_bytes() >> 20
        told = programs.loaded.run_statistics()
    finally:
        programs.close()
    most = max(told, key=lambda name: told[name]["verified_insns"])
    detail = (
        f"{len(attached)} probes attached, {count} programs of uprobes loaded, in {size} MB;"
        f" at most {told[most]['verified_insns']} instructions verified ({most})"
    )
    return Check(name, True, detail, needed=needed)


def _mend(error: PretakeError) -> str:
    """What to do about it, which for who asks the doctor is not to ask the doctor."""
    return error.mend if error.mend and _HERE not in error.mend else _REFUSED_MEND


def of_binary(path: Path) -> Iterator[Check]:
    """What can be captured of a program or a library, and what not."""
    try:
        found = look_at(path)
    except PretakeError as error:
        yield Check(f"{path}", False, error.problem, error.mend, needed=False)
        return
    if isinstance(found, NoRuntime):
        yield Check(
            f"{path}",
            False,
            f"{found.why}: there is no P, M or G to read",
            found.mend,
            needed=False,
        )
        return
    version = found.version if found.runtime == "go" else f"{found.runtime} {found.version}"
    if found.arch != platform.machine():
        yield Check(
            f"{path}",
            False,
            f"{version}, for {found.arch}: nothing of it runs on {platform.machine()}",
            f"capture it on {found.arch}",
            needed=False,
        )
        return
    yield Check(f"{path}", True, version, needed=False)
    if isinstance(found, GoBinary) and found.assumed:
        told = f"{found.offsets_from}; a capture uses them once the running process confirms them"
        yield Check("offsets of P, M and G", True, told, needed=False)
    for missing in found.missing:
        yield Check(missing.what, False, missing.why, missing.mend, needed=False)
