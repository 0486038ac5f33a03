"""The words for what a runtime does, shared by the schema and by the reference runtime.

This file imports nothing, so that the compiled scheduler can number its transitions by the
same words that a trace stores them under. New words go to the end: a number that was written
to disk keeps its meaning.
"""

from __future__ import annotations

__all__ = [
    "BLOCK_WHYS",
    "P_STATUSES",
    "P_USES",
    "RUNTIME_KINDS",
    "RUNTIME_REASONS",
    "SAFE_POINTS",
]

RUNTIME_KINDS = (
    # The P's way from a thread that blocks to the next goroutine.
    "retake",  # somebody takes P from an M that is in a system call
    "handoff",  # P leaves an M and looks for another (Go: handoffp)
    "startm",  # an M is woken or made to run P (Go: startm)
    "acquirep",  # an M that was given P is on a CPU with it
    "run",  # the first goroutine runs on P since it changed hands
    "pidle",  # P found nothing to run and went to the idle list (Go: pidleput)
    "exit_slow",  # a call returned and its P was gone (Go: exitsyscall0, exitsyscallNoP)
    "stopm",  # an M parks without a P (Go: stopm)
    # Preemption.
    "preempt_request",  # a goroutine is asked to stop
    "preempted",  # it stopped
    "preempt_refused",  # it did not, and the reason says why
    "stw_start",  # stop-the-world is asked for
    "stw_stopped",  # the world stands
    "stw_end",  # the world goes on
    # Choices of a policy.
    "site_mode",  # an adaptive call site changed to the mode in the reason
    # With --probes both: the retake that a look at memory told, beside the probe's own row.
    "retake_inferred",
)

RUNTIME_REASONS = (
    "sysmon",  # the monitor's poll
    "sched_out",  # a blocked switch-out told by a perf event
    "thread_state",  # the monitor saw the thread blocked
    "integrated",  # an M without work looked after the others
    "ums",  # the (simulated) kernel told of the block
    "syscall_block",  # before the call, by entersyscallblock
    "locked",  # a locked thread gives up its P (Go: stoplockedm)
    "gc",  # the collector
    "stw",  # stop-the-world
    "suspend",  # one goroutine is to stand still (Go: suspendG)
    "panic",  # the program dies
    "time_slice",  # ran for 10 ms (Go: forcePreemptNS)
    "cooperative",  # at a function entry, by the poisoned stack guard
    "async",  # by SIGURG, where it stood
    "not_wanted",  # the request was withdrawn before the signal came
    "unsafe_point",  # the interrupted PC is in no safe range
    "not_running_g",  # the signal met a thread that runs no goroutine
    "raw",  # call-site mode: no hooks
    "normal",  # call-site mode: entersyscall
    "block",  # call-site mode: entersyscallblock
    "other",  # none of these words
    "exitsyscall",  # a call returned, and its M took its old P back from another M's call
    "upcall",  # a program in the kernel woke an M at the block, which took the P
)

P_USES = (
    "syscall",  # the thread holds P and the runtime was told (entersyscall): P can be retaken
    "raw",  # the thread holds P and the runtime was not told: nobody will retake it
    "handed_off",  # a goroutine's call, whose P was given away before the thread blocked
)

BLOCK_WHYS = (
    "syscall",  # in a system call
    "fault",  # outside of one, with P: a page that has to be read, copied or made
)

P_STATUSES = ("idle", "running", "syscall", "gcstop", "dead")
"""Go's numbers of p.status (runtime2.go), which the reference runtime shares. From Go 1.26 on no
P is in ``syscall``."""

SAFE_POINTS = ("safe", "unsafe_point", "assembly", "runtime", "no_go")
"""What stands at a code address in the way of preempting there."""
