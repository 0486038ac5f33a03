"""The two functions on which a tracer puts its probes.

Compiled, they are global symbols that do nothing. The arguments lie where the C ABI puts them:
``i64`` as a plain number, objects as pointers into the process.

They are called only where a P changes hands or a thread parks, never for each goroutine switch and
never for a system call that does not block. So a probe costs time only where a thread switch costs
more. A probe costs 1.1 µs: the library is compiled so that functions begin with a nop, which the
kernel emulates. Where the kernel must single-step the first instruction, it costs 5 µs.

A simulated machine takes the time of a transition itself (``Sched.toll``). On a real machine
:func:`transition` reads two words and does nothing. It touches no object, so it may be called
without the GIL and from the handler of a signal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracer.trace.words import RUNTIME_KINDS, RUNTIME_REASONS

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import G, M, P

RETAKE: Final[i64] = RUNTIME_KINDS.index("retake")
HANDOFF: Final[i64] = RUNTIME_KINDS.index("handoff")
STARTM: Final[i64] = RUNTIME_KINDS.index("startm")
ACQUIREP: Final[i64] = RUNTIME_KINDS.index("acquirep")
RUN: Final[i64] = RUNTIME_KINDS.index("run")
PIDLE: Final[i64] = RUNTIME_KINDS.index("pidle")
EXIT_SLOW: Final[i64] = RUNTIME_KINDS.index("exit_slow")
STOPM: Final[i64] = RUNTIME_KINDS.index("stopm")
SITE_MODE: Final[i64] = RUNTIME_KINDS.index("site_mode")

PREEMPT_REQUEST: Final[i64] = RUNTIME_KINDS.index("preempt_request")
PREEMPTED: Final[i64] = RUNTIME_KINDS.index("preempted")
PREEMPT_REFUSED: Final[i64] = RUNTIME_KINDS.index("preempt_refused")
STW_START: Final[i64] = RUNTIME_KINDS.index("stw_start")
STW_STOPPED: Final[i64] = RUNTIME_KINDS.index("stw_stopped")
STW_END: Final[i64] = RUNTIME_KINDS.index("stw_end")

BY_SYSMON: Final[i64] = RUNTIME_REASONS.index("sysmon")
BY_SCHED_OUT: Final[i64] = RUNTIME_REASONS.index("sched_out")
BY_THREAD_STATE: Final[i64] = RUNTIME_REASONS.index("thread_state")
BY_INTEGRATED: Final[i64] = RUNTIME_REASONS.index("integrated")
BY_UMS: Final[i64] = RUNTIME_REASONS.index("ums")
BY_UPCALL: Final[i64] = RUNTIME_REASONS.index("upcall")
BY_EXITSYSCALL: Final[i64] = RUNTIME_REASONS.index("exitsyscall")
BY_SYSCALL_BLOCK: Final[i64] = RUNTIME_REASONS.index("syscall_block")
TO_RAW: Final[i64] = RUNTIME_REASONS.index("raw")
TO_NORMAL: Final[i64] = RUNTIME_REASONS.index("normal")
TO_BLOCK: Final[i64] = RUNTIME_REASONS.index("block")
BY_LOCKED: Final[i64] = RUNTIME_REASONS.index("locked")
BY_GC: Final[i64] = RUNTIME_REASONS.index("gc")
BY_STW: Final[i64] = RUNTIME_REASONS.index("stw")
BY_SUSPEND: Final[i64] = RUNTIME_REASONS.index("suspend")
BY_PANIC: Final[i64] = RUNTIME_REASONS.index("panic")
BY_TIME_SLICE: Final[i64] = RUNTIME_REASONS.index("time_slice")
BY_CHECK: Final[i64] = RUNTIME_REASONS.index("cooperative")
BY_SIGNAL: Final[i64] = RUNTIME_REASONS.index("async")
NOT_WANTED: Final[i64] = RUNTIME_REASONS.index("not_wanted")
UNSAFE_POINT: Final[i64] = RUNTIME_REASONS.index("unsafe_point")
NOT_RUNNING_G: Final[i64] = RUNTIME_REASONS.index("not_running_g")
NO_REASON: Final = -1
NO_TID: Final = -1


def mstart(m: M, tid: i64) -> None:
    """M has begun to live on the calling thread, whose kernel id is ``tid``."""


def transition(kind: i64, m: M, p: P, g: G, reason: i64, target_tid: i64) -> None:  # noqa: ARG001
    """M did ``kind`` to P and G, for ``reason``.

    Args:
        kind: index in :data:`tracer.trace.words.RUNTIME_KINDS`.
        m: the M that did it, on the calling thread.
        p: the P concerned, or ``NO_P``.
        g: the G concerned, or ``NO_G``.
        reason: index in :data:`tracer.trace.words.RUNTIME_REASONS`, or -1 for none.
        target_tid: kernel id of the thread it was done to, or -1.
    """
    if m.sched.tolled:
        pay_toll(kind, m)


def pay_toll(kind: i64, m: M) -> None:
    """The transition takes time, on a simulated machine."""
    toll = m.sched.toll
    if toll is not None:
        toll(int(kind))
