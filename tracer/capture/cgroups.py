"""In which cgroup, and so in which container and pod, a process is."""

from __future__ import annotations

from pathlib import Path

from tracer.trace.containers import Container, container_of

__all__ = ["cgroup_of", "place_of"]


def place_of(pid: int) -> Container:
    """Where a process is; nothing is known of one that has ended."""
    return container_of(cgroup_of(pid))


def cgroup_of(pid: int, proc: Path = Path("/proc")) -> str | None:
    """The cgroup of a process: that of the unified hierarchy, else the first; None if it has
    ended."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    paths = {line.split(":", 2)[0]: line.split(":", 2)[2] for line in lines}
    unified = paths.get("0")
    if unified is not None and unified != "/":
        return unified
    # Of the older ones, a container's are all alike.
    return max((*paths.values(), ""), key=len) or None
