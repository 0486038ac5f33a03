"""Every table of a trace, declared once.

The C structs that the BPF programs fill, the numpy types that read them out of a ring, the
Arrow schemas of the Parquet files and the page ``docs/trace-format.md`` are all made from the
declarations in this file. Columns are declared nowhere else.

Conventions:

- Time is ``CLOCK_MONOTONIC`` in nanoseconds (``bpf_ktime_get_ns``, ``time.monotonic_ns``).
- All numbers are signed, so that a difference of two is never a wrapped giant.
- A thread or process is known by its number in the machine's first pid namespace, also where it
  runs in a container and its program knows another one.
- Unknown is ``UNKNOWN`` (-1) in a record and null in Arrow. It is never 0.
- A column with ``words`` holds the index of a word; in Arrow it is a dictionary of strings.
- Columns stand in descending size, so that the C struct and the numpy type have no padding.
- A trace of an older version stays readable: a table that it lacks is empty there, and a column
  that it lacks (:attr:`~tracer.trace.columns.Column.since`) is null, or the first of its words.
"""

from __future__ import annotations

from tracer.trace.columns import Column, Table
from tracer.trace.unknown import UNKNOWN, UNKNOWN_RESULT
from tracer.trace.words import (
    BLOCK_WHYS,
    P_STATUSES,
    P_USES,
    RUNTIME_KINDS,
    RUNTIME_REASONS,
    SAFE_POINTS,
)

__all__ = ["SCHEMA_VERSION", "TABLES", "UNKNOWN"]

SCHEMA_VERSION = 4
"""Version of a trace's layout. A reader refuses a trace with a higher one."""

_TS = Column("ts_ns", "i64", "when it happened, CLOCK_MONOTONIC")
_CPU = Column("cpu", "i16", "CPU on which it happened", nullable=True)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "sched_switch",
            "a switch on a CPU that a target thread leaves or enters (tracepoint "
            "sched:sched_switch, or PERF_RECORD_SWITCH)",
            (
                _TS,
                Column(
                    "prev_tid",
                    "i32",
                    "thread that leaves the CPU; null if the source does not say",
                    nullable=True,
                ),
                Column(
                    "next_tid",
                    "i32",
                    "thread that enters the CPU, 0 for idle; null if the source does not say",
                    nullable=True,
                ),
                _CPU,
                Column(
                    "prev_state",
                    "i8",
                    "why the thread left the CPU; 'stopped' is SIGSTOP, ptrace or a frozen cgroup",
                    nullable=True,
                    words=("preempted", "blocked", "dead", "stopped"),
                ),
            ),
        ),
        Table(
            "sched_wakeup",
            "a wake-up that makes a target thread runnable (tracepoints sched:sched_waking, "
            "sched:sched_wakeup_new)",
            (
                _TS,
                Column("tid", "i32", "thread that was woken"),
                Column(
                    "waker_tid",
                    "i32",
                    "thread that ran on the waking CPU; 0 when that CPU was idle",
                    nullable=True,
                ),
                _CPU,
                Column("target_cpu", "i16", "CPU the thread is to run on", nullable=True),
                Column(
                    "kind",
                    "i8",
                    "wakeup: the thread had run before; new: it runs for the first time",
                    words=("wakeup", "new"),
                ),
            ),
        ),
        Table(
            "block",
            "one block of a target thread in the kernel, in a system call or, if it has a P, in "
            "a page fault; with the state of the runtime, read from its memory at that moment. "
            "There are no rows while the runtime is not in reach, and none of the runtime's own "
            "threads",
            (
                _TS,
                Column(
                    "enter_ns",
                    "i64",
                    "when the system call was entered; null for a fault, and for a call that was "
                    "entered before the capture",
                    nullable=True,
                ),
                Column("goid", "i64", "goroutine whose call it is", nullable=True),
                Column(
                    "arg0",
                    "i64",
                    "the call's first argument, often a file descriptor",
                    nullable=True,
                ),
                Column(
                    "address",
                    "i64",
                    "of a fault: the address whose page was not there",
                    nullable=True,
                    since=2,
                ),
                Column("tid", "i32", "thread that blocked"),
                Column("p", "i32", "P that it held; null for none or not known", nullable=True),
                Column("m", "i32", "M that the thread is", nullable=True),
                Column("runq", "i32", "goroutines in P's local run queue", nullable=True),
                Column("global_runq", "i32", "goroutines in the global queue", nullable=True),
                Column("npidle", "i32", "idle Ps", nullable=True),
                Column("nmspinning", "i32", "Ms looking for work", nullable=True),
                Column("stack_id", "i32", "row in table stack", nullable=True),
                Column(
                    "nr",
                    "i16",
                    "number of the system call, by the manifest's `arch`; null for one of another "
                    "table, as 32-bit code makes it",
                    nullable=True,
                ),
                _CPU,
                Column(
                    "p_use",
                    "i8",
                    "what the thread did with its P: kept it in a call (syscall) or in a raw call "
                    "(raw), or handed it off before the call (handed_off)",
                    nullable=True,
                    words=P_USES,
                ),
                Column(
                    "why",
                    "i8",
                    "where it blocked: in a system call, or in a page fault with its P",
                    words=BLOCK_WHYS,
                    since=2,
                ),
            ),
        ),
        Table(
            "syscall",
            "a finished system call of a target thread that blocked, or any one with --detail "
            "full",
            (
                Column(
                    "enter_ns",
                    "i64",
                    "when it was entered, or the latest time at which it can have been: its first "
                    "block; null if it was entered before the capture",
                    nullable=True,
                ),
                Column(
                    "enter_since_ns",
                    "i64",
                    "null if it was entered exactly at enter_ns. Otherwise it was entered after "
                    "this time, at which its thread came on a CPU, was made, got a signal or "
                    "became another program, and not after enter_ns",
                    nullable=True,
                    since=3,
                ),
                Column(
                    "exit_ns",
                    "i64",
                    "when it returned, or the earliest time at which it can have: when its thread "
                    "came back on a CPU",
                ),
                Column(
                    "exit_until_ns",
                    "i64",
                    "null if it returned exactly at exit_ns. Otherwise it returned after exit_ns "
                    "and not after this time, at which it was seen to be over",
                    nullable=True,
                    since=3,
                ),
                Column(
                    "ret",
                    "i64",
                    "result that the program got; negative is -errno. Null without --calls "
                    "exact, except after a signal or an exec. A call that a signal interrupts "
                    "and that the kernel restarts is one row, with the last result. Exception: "
                    "if that call is inside a signal handler that interrupted another such call, "
                    "each part is a row, with the kernel's internal result, -516 to -512",
                    nullable=True,
                    unknown=UNKNOWN_RESULT,
                ),
                Column("arg0", "i64", "its first argument", nullable=True),
                Column(
                    "blocked_ns",
                    "i64",
                    "time inside the call in which the thread was not runnable",
                    nullable=True,
                ),
                Column("tid", "i32", "thread that made the call"),
                Column("blocks", "i32", "how many times it blocked", nullable=True),
                Column(
                    "nr",
                    "i16",
                    "number of the system call, by the manifest's `arch`; null for one of another "
                    "table, as 32-bit code makes it",
                    nullable=True,
                ),
                _CPU,
            ),
        ),
        Table(
            "runtime",
            "a transition of the runtime, such as a retake: from a uprobe on the runtime's own "
            "function, or inferred from its memory",
            (
                _TS,
                Column(
                    "since_ns",
                    "i64",
                    "null if it happened exactly at ts_ns. Otherwise it was inferred from a look "
                    "at the runtime's memory, and happened after since_ns and not after ts_ns",
                    nullable=True,
                    since=2,
                ),
                Column("goid", "i64", "goroutine concerned", nullable=True),
                Column("tid", "i32", "thread that did it"),
                Column("p", "i32", "P concerned", nullable=True),
                Column("m", "i32", "M concerned", nullable=True),
                Column(
                    "target_tid",
                    "i32",
                    "thread that it concerns, if not the same; for a retake the one that lost P",
                    nullable=True,
                ),
                Column("runq", "i32", "goroutines in P's local run queue", nullable=True),
                Column("global_runq", "i32", "goroutines in the global queue", nullable=True),
                Column("npidle", "i32", "idle Ps", nullable=True),
                Column("nmspinning", "i32", "Ms looking for work", nullable=True),
                _CPU,
                Column("kind", "i8", "which transition", words=RUNTIME_KINDS),
                Column("reason", "i8", "why", nullable=True, words=RUNTIME_REASONS),
            ),
        ),
        Table(
            "signal",
            "a signal that is sent to a target thread or delivered there: SIGURG, or any signal "
            "with --all-signals",
            (
                _TS,
                Column("pc", "i64", "user address that was interrupted", nullable=True),
                Column(
                    "tid",
                    "i32",
                    "thread that it is sent to; null for a tgkill that failed in a pid namespace, "
                    "where the given number means another thread, or none",
                    nullable=True,
                ),
                Column("sender_tid", "i32", "thread that sent it", nullable=True),
                Column(
                    "generation",
                    "i32",
                    "which program of the thread's process, as in table task",
                    nullable=True,
                    since=2,
                ),
                Column("errno", "i32", "0, or why tgkill failed", nullable=True),
                Column(
                    "interrupted_nr",
                    "i16",
                    "number of the system call that its delivery made fail with EINTR",
                    nullable=True,
                ),
                Column("signo", "i16", "number of the signal"),
                _CPU,
                Column(
                    "kind",
                    "i8",
                    "sent by tgkill, queued by the kernel (generate), or delivered",
                    words=("tgkill", "generate", "deliver"),
                ),
            ),
        ),
        Table(
            "task",
            "an event in the life of a target thread or process",
            (
                _TS,
                Column("tid", "i32", "thread"),
                Column("pid", "i32", "its process (thread group)"),
                Column("parent_tid", "i32", "thread that made it", nullable=True),
                Column(
                    "generation",
                    "i32",
                    "which program of its process: the number of execs that were seen, this one "
                    "included",
                    nullable=True,
                    since=2,
                ),
                Column("comm", "comm", "its name"),
                _CPU,
                Column(
                    "kind",
                    "i8",
                    "what happened; present: it existed when the capture began",
                    words=("present", "fork", "exec", "name", "exit"),
                ),
            ),
        ),
        Table(
            "loss",
            "a span of time in which a ring lost records, and how many",
            (
                Column("begin_ns", "i64", "no loss before this"),
                Column("end_ns", "i64", "no loss after this"),
                Column("lost", "i64", "number of records that found no room"),
                _CPU,
                Column(
                    "table",
                    "i8",
                    "table whose ring it was",
                    words=(
                        "sched_switch",
                        "sched_wakeup",
                        "block",
                        "syscall",
                        "runtime",
                        "signal",
                        "task",
                        "pstate",
                        "waiting",
                    ),
                ),
            ),
            ring=False,
        ),
        Table(
            "stack",
            "one frame of a stack with which a target thread blocked. Stacks are walked by frame "
            "pointers, so a function that keeps none, such as the one that makes the system call, "
            "hides its caller. The table is written at the end of the capture",
            (
                Column(
                    "pc",
                    "i64",
                    "user address: where the thread is, or where the function will return to",
                ),
                Column("stack_id", "i32", "the stack, as in table block"),
                Column("pid", "i32", "process that blocked with it"),
                Column(
                    "generation",
                    "i32",
                    "which program of the process, as in table task",
                    nullable=True,
                    since=2,
                ),
                Column("depth", "i16", "0 for the innermost frame"),
            ),
            ring=False,
        ),
        Table(
            "address",
            "the function and line of one code address of tables stack and signal, from the "
            "program's own function table. The table is written at the end of the capture",
            (
                Column("function", "text", "function that it lies in", nullable=True),
                Column("file", "text", "source file", nullable=True),
                Column("pc", "i64", "the address, as it was in the process"),
                Column("pid", "i32", "the process"),
                Column(
                    "generation",
                    "i32",
                    "which program of the process, as in table task",
                    nullable=True,
                    since=2,
                ),
                Column("line", "i32", "line of the source file", nullable=True),
                Column(
                    "preemption",
                    "i8",
                    "whether Go can stop a goroutine there (safe), or why not (isAsyncSafePoint "
                    "in runtime/preempt.go): the compiler marked it unsafe, it is assembly, it "
                    "belongs to the runtime, or it is no Go code",
                    nullable=True,
                    words=SAFE_POINTS,
                ),
            ),
            ring=False,
        ),
        Table(
            "pstate",
            "a P whose state (its status, its M or its syscalltick) differs from that at the look "
            "before. A look reads a bounded number of Ps, and the next looks read the others",
            (
                Column("ts_ns", "i64", "when this state was seen, CLOCK_MONOTONIC"),
                Column(
                    "since_ns",
                    "i64",
                    "when this P was last seen in its former state. The change happened after "
                    "this time and not after ts_ns; null at the first look",
                    nullable=True,
                ),
                Column("looker_tid", "i32", "thread that ran at the look"),
                Column("pid", "i32", "the process"),
                Column("p", "i32", "P"),
                Column("tid", "i32", "thread of the M that has the P", nullable=True),
                Column("syscalltick", "i32", "p.syscalltick", nullable=True),
                Column(
                    "runq",
                    "i32",
                    "goroutines in its local queue, runnext included",
                    nullable=True,
                ),
                _CPU,
                Column("status", "i8", "p.status", nullable=True, words=P_STATUSES),
            ),
        ),
        Table(
            "waiting",
            "one look at the whole scheduler, with the number of goroutines that were ready and "
            "did not run. There is a look when a P's state changes, and otherwise at a bounded "
            "rate for each process",
            (
                Column("ts_ns", "i64", "time of the look, CLOCK_MONOTONIC"),
                Column(
                    "oldest_ns",
                    "i64",
                    "when the oldest part of it was read: if there are many Ps, a look reads "
                    "some of them and takes the others from earlier looks",
                ),
                Column(
                    "timer_ns",
                    "i64",
                    "when the earliest timer of all Ps is due; null for none or not known",
                    nullable=True,
                ),
                Column("tid", "i32", "thread that ran at the look"),
                Column("pid", "i32", "the process"),
                Column(
                    "runq",
                    "i32",
                    "goroutines in all local queues, runnext included; for a P that was not "
                    "read, as of the look that read it last",
                    nullable=True,
                ),
                Column(
                    "runq_least",
                    "i32",
                    "the same for only those Ps that were read at this look",
                    nullable=True,
                ),
                Column("global_runq", "i32", "goroutines in the global queue", nullable=True),
                Column("timers_due", "i32", "Ps whose earliest timer was due", nullable=True),
                Column("npidle", "i32", "idle Ps", nullable=True),
                Column("nmspinning", "i32", "Ms looking for work", nullable=True),
                Column("gomaxprocs", "i32", "how many Ps there are (len(allp))", nullable=True),
                Column("unseen", "i32", "Ps that no look has read so far", nullable=True),
                _CPU,
                Column(
                    "gcwaiting",
                    "i8",
                    "1 while a stop-the-world is requested or lasts (sched.gcwaiting)",
                    nullable=True,
                ),
            ),
        ),
        Table(
            "throttle",
            "a span between two readings of cpu.stat of a cgroup of the targets, or of a cgroup "
            "above it, with the time for which the CPU quota kept threads off the CPUs. cpu.stat "
            "is read every 0.1 s; successive spans without throttling are one row",
            (
                Column("begin_ns", "i64", "the reading at its beginning"),
                Column("end_ns", "i64", "the reading at its end"),
                Column(
                    "throttled_ns",
                    "i64",
                    "throttled time in the span, summed over the cgroup's CPUs",
                ),
                Column("cgroup", "text", "path of the cgroup, from the root of all cgroups"),
                Column("pid", "i32", "a process in it"),
            ),
            ring=False,
        ),
        Table(
            "reach",
            "one program of a process, and since when the state of its runtime could be read",
            (
                Column(
                    "exec_ns",
                    "i64",
                    "when the process became this program; null if that was before the capture",
                    nullable=True,
                ),
                Column(
                    "ts_ns",
                    "i64",
                    "since when the runtime's state could be read; null for never",
                    nullable=True,
                ),
                Column("path", "text", "path of the program", nullable=True),
                Column("build_id", "text", "its ELF build id, hexadecimal", nullable=True),
                Column("runtime", "text", "go, reference or none", nullable=True),
                Column("version", "text", "the runtime's version", nullable=True),
                Column("comm", "text", "name of its first thread", nullable=True),
                Column(
                    "cgroup",
                    "text",
                    "path of its cgroup; null if it had ended before it was asked for",
                    nullable=True,
                    since=4,
                ),
                Column(
                    "container",
                    "text",
                    "id of its container; null for none",
                    nullable=True,
                    since=4,
                ),
                Column("pod", "text", "uid of its pod; null for none", nullable=True, since=4),
                Column("pid", "i32", "the process"),
                Column("generation", "i32", "how many execs of the process came before this one"),
            ),
            ring=False,
        ),
    )
}
"""The tables of a trace, by name."""
