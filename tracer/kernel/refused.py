"""Why the kernel lets the caller load no BPF program: it lacks a right, or a filter refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tracer.errors import PretakeError

__all__ = ["refusal"]

_CAP_BPF, _CAP_SYS_ADMIN = 1 << 39, 1 << 21
_FILTERED: Final = "2"  # SECCOMP_MODE_FILTER


def refusal(status: Path = Path("/proc/self/status")) -> PretakeError:
    """The error for a ``bpf`` that failed with EPERM.

    The default profiles of some container runtimes refuse that call to CAP_BPF, and let it to
    CAP_SYS_ADMIN alone. Then "run it with sudo" would help nobody.

    Args:
        status: what the kernel tells of the caller.
    """
    told = dict(
        line.partition(":\t")[::2]
        for line in status.read_text("utf-8", "surrogateescape").splitlines()
    )
    allowed = int(told["CapEff"], 16) & (_CAP_BPF | _CAP_SYS_ADMIN)
    if allowed and told.get("Seccomp") == _FILTERED:
        return PretakeError(
            "the seccomp profile of this container refuses bpf",
            "run it with one that allows bpf to CAP_BPF and perf_event_open to CAP_PERFMON",
        )
    return PretakeError("the kernel lets only root load BPF programs", "run it with sudo")
