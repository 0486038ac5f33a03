"""Numbers of the words that the pass reads (``tracer/trace/words.py``, ``schema.py``).

They are repeated here because a compiled comparison needs a constant;
``tests/unit/analysis/test_budget.py`` compares each with its declaration. The first part of a name
stands for the column: ``USE`` for ``block.p_use``, ``BY`` for ``runtime.reason``, ``SEEN`` for
``pstate.status``, ``PREV`` for ``sched_switch.prev_state``; kinds of ``runtime`` have none.
"""

from __future__ import annotations

from typing import Final

USE_SYSCALL: Final = 0
USE_RAW: Final = 1
USE_HANDED_OFF: Final = 2
RETAKE: Final = 0
HANDOFF: Final = 1
STARTM: Final = 2
ACQUIREP: Final = 3
RUN: Final = 4
PIDLE: Final = 5
EXIT_SLOW: Final = 6
STOPM: Final = 7
PREEMPT_REQUEST: Final = 8
PREEMPTED: Final = 9
STW_START: Final = 11
STW_STOPPED: Final = 12
STW_END: Final = 13
BY_SYSCALL_BLOCK: Final = 5
BY_STW: Final = 8
BY_EXITSYSCALL: Final = 21
SEEN_IDLE: Final = 0
SEEN_RUNNING: Final = 1
SEEN_SYSCALL: Final = 2
SEEN_GCSTOP: Final = 3
SEEN_DEAD: Final = 4
TASK_FORK: Final = 1
TASK_EXEC: Final = 2
TASK_EXIT: Final = 4
PREV_PREEMPTED: Final = 0
PREV_BLOCKED: Final = 1
PREV_DEAD: Final = 2
PREV_STOPPED: Final = 3
WHY_FAULT: Final = 1
SIGNAL_DELIVER: Final = 2

POLLS: Final = (232, 281, 441)
"""epoll_wait, epoll_pwait, epoll_pwait2: where Go's M without work waits, and without its P."""
