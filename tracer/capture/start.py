"""The order in which a capture begins, for ``record`` and ``live``.

1. The target exists: a command that waits at a gate, or a running process.
2. The programs are loaded; nothing is attached.
3. The binaries are inspected, and the keeper starts with the capabilities that are needed later,
   fewer if no uprobe is wanted.
4. The programs are attached to their tracepoints. They drop everything, since no thread is a
   target.
5. The uprobes are put in their places.
6. The tracer becomes an ordinary user (:func:`tracer.capture.privilege.give_up`), before there
   are threads of its own, each of which would have capabilities of its own.
7. The target's threads become targets, and the gate opens.
"""

from __future__ import annotations

from tracer.capture.launch import Command, RunningProcess, threads_of
from tracer.capture.programs import Programs
from tracer.capture.runtimes import Runtimes
from tracer.capture.several import Several

__all__ = ["attach", "begin", "follow"]


def attach(
    target: Command | RunningProcess | Several,
    programs: Programs,
    runtimes: Runtimes,
) -> list[str]:
    """Put everything in its place, and tell nothing yet.

    Args:
        target: the process to come, or those that run.
        programs: what is attached.
        runtimes: looks at the target's binaries.

    Returns:
        The names of the tracepoints.

    Raises:
        PretakeError: the kernel refused.
    """
    if isinstance(target, Command):
        runtimes.expect(target.pid, target.executable)
    else:
        for pid in target.pids:
            runtimes.attach_running(pid)
    seeks = isinstance(target, Several) and target.seeks_go
    keeper = programs.start_keeper(target.pid, runtimes.uprobes, seeks)
    attached = programs.probes.attach()
    programs.followed.prepare()
    keeper.wait()
    runtimes.files.keeper = keeper
    runtimes.finish_probing()
    return attached


def begin(target: Command | RunningProcess, programs: Programs) -> list[int]:
    """Make the target a target; a command starts.

    Returns:
        The threads of a running process; none of a command, which is told by its own exec.
    """
    if isinstance(target, Command):
        programs.followed.follow(target.pid, before_exec=True)
        target.open_gate()
        return []
    return follow(target.pid, programs)


def follow(pid: int, programs: Programs) -> list[int]:
    """Make a running process a target.

    Returns:
        Its threads; none where it has ended.
    """
    # One that a thread makes before it is a target itself is seen by the next look; one that it
    # makes afterwards is a target from birth.
    known: set[int] = set()
    while new := set(threads_of(pid)) - known:
        programs.followed.follow(pid)
        known |= new
    return sorted(known)
