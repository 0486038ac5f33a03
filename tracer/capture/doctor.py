"""What this machine can and cannot do, and the mend.

Each check tries the thing itself rather than a version number, and names one command or change
that mends it.

Example:
    >>> [check.name for check in diagnose() if check.needed and not check.ok]
    []
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.capture.privilege import in_first_pid_namespace, may_load_bpf
from tracer.capture.programs import Programs
from tracer.errors import PretakeError
from tracer.kernel.bcc_loader import (
    INSTALL,
    TRACEFS,
    find_headers,
    kernel_source,
    load_bcc,
    mount_tracefs,
    tracefs_mounted,
)
from tracer.kernel.btf import VMLINUX_BTF, kernel_btf
from tracer.kernel.compiler import TRACEPOINTS
from tracer.targets import NoRuntime, look_at

__all__ = ["Check", "diagnose", "fix"]

_PARANOID: Final = Path("/proc/sys/kernel/perf_event_paranoid")
_UPROBES: Final = Path("/sys/bus/event_source/devices/uprobe/type")
_KERNEL_MEND: Final = "run a kernel like Debian's or Ubuntu's, 5.15 or later"


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
        Every check, in the order in which they should be mended. The last of the machine's own
        loads the probes, as a capture does.
    """
    checks = [
        _privilege(),
        _pid_namespace(),
        _btf(),
        _tracepoints(),
        _uprobes(),
        _bcc(),
        _headers(),
        _tracefs(),
        _perf_level(),
        _jail(),
    ]
    checks.append(_probes(able=all(check.ok for check in checks if check.needed)))
    if binary is not None:
        checks += _binary(binary)
    return checks


def fix() -> list[str]:
    """Mend what can be mended without changing the system's set-up.

    Returns:
        What was done, one line each.

    Raises:
        PretakeError: something could not be done.
    """
    done = []
    if not tracefs_mounted():
        mount_tracefs()
        done.append(f"mounted tracefs at {TRACEFS}")
    if find_headers() is not None:
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
    return Check("tracepoints", not missing, detail, _KERNEL_MEND if missing else "")


def _uprobes() -> Check:
    ok = _UPROBES.exists()
    return Check(
        "uprobes",
        ok,
        "found" if ok else "this kernel has none, so a runtime's transitions are not captured",
        "" if ok else "run a kernel with CONFIG_UPROBE_EVENTS=y",
        needed=False,
    )


def _bcc() -> Check:
    try:
        bcc = load_bcc()
    except PretakeError as error:
        return Check("bcc", False, error.problem, error.mend)
    return Check("bcc", True, f"{bcc.__version__}, {Path(bcc.__file__ or '').parent}")


def _headers() -> Check:
    trees = find_headers()
    if trees is None:
        return Check("kernel headers", False, "none found", INSTALL)
    return Check("kernel headers", True, " and ".join(str(tree) for tree in trees))


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
    level = int(_PARANOID.read_text()) if _PARANOID.exists() else 4
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


def _probes(able: bool) -> Check:
    if not able:
        return Check("probes", False, "not tried", "mend the above first")
    try:
        programs = Programs(None)
    except PretakeError as error:
        return Check("probes", False, error.problem, error.mend)
    try:
        attached = programs.probes.attach()
    except PretakeError as error:
        return Check("probes", False, error.problem, error.mend)
    else:
        size = programs.loaded.map_bytes() >> 20
    finally:
        programs.close()
    return Check("probes", True, f"{len(attached)} loaded and attached, in {size} MB")


def _binary(path: Path) -> Iterator[Check]:
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
    yield Check(f"{path}", True, version, needed=False)
    for missing in found.missing:
        yield Check(missing.what, False, missing.why, missing.mend, needed=False)
