"""What to do now: the budget in a sentence, and what a person can change for each cause.

All figures come from the budget (:mod:`analysis.answers.budget`). If the trace gives only a least
and a most of a figure, the sentence has both.

Example:
    >>> verdict = what_now(trace.budget(), "go")
    >>> verdict.sentence
    '38 % of the P time of etcd (pid 7) was lost, most of it at main.go:34 (read).'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from analysis.answers.budget import Budget, LostAt, Process, Waited
from analysis.units import duration_text, percent_text, ratio_text

__all__ = ["Finding", "Verdict", "process_name", "range_text", "what_now"]

_NEGLIGIBLE = 0.005
"""Less of the P time than this, lost or unknown, is not told as a problem."""
_FINDINGS = 5
_POLLABLE = frozenset(
    {
        *("read", "readv", "write", "writev", "accept", "accept4", "connect"),
        *("recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg"),
        *("poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait"),
    }
)
"""Calls that the network poller can wait for instead, where the descriptor is no regular file."""
_OF_RUNTIME = ("runtime.", "PyThread_")
_SLEEPS = frozenset({"nanosleep", "clock_nanosleep"})
_FOR_FAULT = (
    "read the file with read instead of through a mapping, or have its pages there before they "
    "are touched (madvise MADV_POPULATE_READ)"
)
_PERIOD_MS = 100
"""Of cpu.max, where nobody set another."""


_STANDING = ("fault", "no_cpu", "stopped", "stw")
"""States in which a P's own goroutine wants to go on and cannot."""


@dataclass(frozen=True)
class Finding:
    """One cause of lost P time, or of P time in which a P's own goroutine could not go on.

    Args:
        cause: state of the budget that P was in.
        what: the cause in words, with its call site where there is one.
        least_percent: of the P time, what it has taken at least; most_percent: at most.
        today: what a person can change, empty where only the runtime can.
    """

    cause: str
    what: str
    least_percent: float
    most_percent: float
    today: str


@dataclass(frozen=True)
class Verdict:
    """The answer to "what is wrong, and what can I do?".

    Args:
        sentence: the finding about the process that lost most P time.
        good: nothing is wrong, and enough is known to say so.
        findings: the causes of lost P time, the largest first.
        stood: P time that was not lost, since no other goroutine waited for that P, but in which
            the goroutine on it could not go on; by cause, the largest first. A goroutine that is
            blocked in a system call is none: it waits for what it asked for.
        by_runtime: what only a change of Go's runtime would mend; empty for nothing.
        stops: whom stop-the-worlds waited for, and what helps; empty for next to nothing.
        others: the other processes that had Ps; empty for none.
    """

    sentence: str
    good: bool
    findings: tuple[Finding, ...]
    by_runtime: str
    others: str
    stood: tuple[Finding, ...] = ()
    stops: str = ""


def what_now(budget: Budget, runtime: str) -> Verdict:
    """The verdict on a budget.

    Args:
        budget: of the trace.
        runtime: of the target, ``go``, ``reference`` or ``none``: only Go has a GOMAXPROCS to set
            and a poller.
    """
    if not budget["processes"]:
        sentence = (
            "The trace cannot tell where P time went: no process had a P that could be read."
        )
        return Verdict(sentence, False, (), "", "")
    process, *others = budget["processes"]
    findings, stood = _largest(_findings(process)), _largest(_stood(process))
    return Verdict(
        _sentence(process, findings, stood),
        _is_good(process),
        tuple(findings),
        _by_runtime(process) if runtime == "go" else "",
        _others(others),
        tuple(stood),
        _stops(process),
    )


def _largest(findings: Iterator[Finding]) -> list[Finding]:
    order = sorted(findings, key=lambda f: (-f.least_percent, -f.most_percent, f.what))
    return [f for f in order if f.most_percent >= 100 * _NEGLIGIBLE][:_FINDINGS]


def range_text(least: float, most: float) -> str:
    """A share of P time in percent: ``38 %``, or ``12 to 38 %`` where it is not known better."""
    low, high = percent_text(least), percent_text(most)
    return high if low == high or most - least < 0.1 * most else f"{low[:-2]} to {high}"


def process_name(process: Process) -> str:
    """``etcd (pid 7)``; with its pod if it is in one, else with its container if it is in one:
    ``etcd (pid 7, container 0123456789ab)``, which are the digits that ``docker ps`` shows, too.
    """
    told = [f"pid {process['pid']}"] if process["comm"] else []
    if process["pod"]:
        told.append(f"pod {process['pod']}")
    elif process["container"]:
        told.append(f"container {process['container'][:12]}")
    name = process["comm"] or _pid(process)
    return f"{name} ({', '.join(told)})" if told else name


def _pid(process: Process) -> str:
    return f"process {process['pid']}" if process["pid"] > 0 else "a process without a name"


def _sentence(process: Process, findings: list[Finding], stood: list[Finding]) -> str:
    name = process_name(process)
    total = process["p_ns"]
    unknown = process["states"]["unknown"] / total if total else 1.0
    least, most = _lost_share(process)
    if unknown > 0.5:
        known = f" {range_text(least, most)} of it was lost." if most > 0 else ""
        return (
            f"Where {percent_text(100 * unknown)} of the P time of {name} went is not known."
            f"{known}"
        )
    if _is_good(process):
        busy = percent_text(100 * process["states"]["running"] / total)
        return f"Nothing is wrong: {name} used {busy} of its P time, and lost next to none of it."
    stands = (sum(f.least_percent for f in stood), sum(f.most_percent for f in stood))
    if most < 100 * _NEGLIGIBLE and stood:
        return (
            f"Next to no P time of {name} was lost to work that waited, but for "
            f"{range_text(*stands)} of it its own goroutines could not go on, most of it "
            f"{stood[0].what}."
        )
    if most < 100 * _NEGLIGIBLE:
        return (
            f"No P time of {name} is known to be lost; {percent_text(100 * unknown)} of it is "
            "not known."
        )
    where = f", most of it {findings[0].what}" if findings else ""
    lost = f"{range_text(least, most)} of the P time of {name} was lost{where}."
    if stands[0] > most:
        return (
            f"{lost} For another {range_text(*stands)} its own goroutines could not go on, most "
            f"of it {stood[0].what}."
        )
    return lost


def _is_good(process: Process) -> bool:
    total = process["p_ns"]
    _, most = _lost_share(process)
    unknown = process["states"]["unknown"]
    # Each is a share that a program on a busy machine has, too.
    few = 10 * _NEGLIGIBLE * total
    stands = sum(process["states"][state] for state in _STANDING)
    stands += sum(row["ns"] for row in process["stops"]["waited_for"])
    return total > 0 and most < 100 * _NEGLIGIBLE and unknown <= few and stands <= few


def _lost_share(process: Process) -> tuple[float, float]:
    """Lost P time in percent, the least and the most."""
    total = process["p_ns"] or 1
    lost = process["lost_ns"].values()
    least, most = (sum(max(row[end], 0) for row in lost) for end in ("least", "most"))
    return min(100 * least / total, 100.0), min(100 * most / total, 100.0)


def _findings(process: Process) -> Iterator[Finding]:
    total = process["p_ns"] or 1
    for row in process["lost_at"]:
        share = (100 * max(row["least"], 0) / total, 100 * max(row["most"], 0) / total)
        yield Finding(row["state"], _at(row), *share, _for_call(row, process))
    for state in _STATES:
        lost = process["lost_ns"].get(state)
        if lost is None:
            continue
        share = (100 * max(lost["least"], 0) / total, 100 * max(lost["most"], 0) / total)
        what, today = _for_state(state, process)
        yield Finding(state, what, *share, today)


def _stood(process: Process) -> Iterator[Finding]:
    total = process["p_ns"] or 1
    elsewhere_ns = process["states"]["fault"]
    for row in process["lost_at"]:
        if row["state"] == "fault":
            elsewhere_ns -= row["blocked_ns"]
            low, high = (row["blocked_ns"] - max(row[end], 0) for end in ("most", "least"))
            share = (100 * max(low, 0) / total, 100 * max(high, 0) / total)
            yield Finding("fault", _at(row), *share, _FOR_FAULT)
    # The budget names the places that lost most, and no more of them than it says.
    percent = 100 * max(elsewhere_ns, 0) / total
    yield Finding("fault", "in page faults at other places", percent, percent, _FOR_FAULT)
    for state in ("no_cpu", "stopped", "stw"):
        lost = process["lost_ns"][state]
        low, high = (process["states"][state] - max(lost[end], 0) for end in ("most", "least"))
        share = (100 * max(low, 0) / total, 100 * max(high, 0) / total)
        what, today = _for_state(state, process)
        yield Finding(state, what, *share, today)


def _for_state(state: str, process: Process) -> tuple[str, str]:
    """What it is called, and what helps."""
    return _for_no_cpu(process) if state == "no_cpu" else _STATES[state]


def _stops(process: Process) -> str:
    """Whom stop-the-worlds waited for, and what helps; empty where that is next to nothing."""
    stops = process["stops"]
    waited = stops["waited_for"]
    if not waited or sum(row["ns"] for row in waited) < _NEGLIGIBLE * process["p_ns"]:
        return ""
    longest, took = waited[0], stops["stopping_ns"]
    name = longest["function"] or "a function without a name"
    if longest["syscall"]:
        name = f"{longest['syscall']} in {name}"
    many = f"{stops['count']:,} stop-the-world{'s' if stops['count'] != 1 else ''}"
    if not stops["every"]:
        many = f"At least {many}"
    most = f"at most {duration_text(took['max'])}"
    if stops["unknown"]:
        most += f", of {stops['unknown']:,} not known"
    return (
        f"{many} took {duration_text(took['p50'])} (median; {most}) "
        f"until all Ps stood, and waited longest for {name} ({longest['state']}, "
        f"{duration_text(longest['ns'])} in all). What helps: {_for_stop(longest)}."
    )


def _for_stop(longest: Waited) -> str:
    """What helps where a stop waits for this."""
    function = longest["function"] or ""
    of_runtime = function.startswith(_OF_RUNTIME)
    # It blocked, or it was in the kernel all the time: there no signal meets a thread.
    if (longest["state"] == "syscall" and not of_runtime) or function.endswith(".Syscall6"):
        return "syscall.Syscall in place of the raw call, so that a stop need not wait for it"
    if longest["state"] == "fault":
        return _FOR_FAULT
    return "do that in smaller pieces, or away from the garbage collector's busy times"


_STATES: Mapping[str, tuple[str, str]] = {
    "no_cpu": (
        "in which its threads waited for a CPU",
        "fewer threads beside it, GOMAXPROCS no larger than the CPUs it may use, or more CPUs",
    ),
    "stopped": (
        "in which it was stopped by a signal or a debugger",
        "look for what sends SIGSTOP to it, or attaches to it with ptrace",
    ),
    "transit": ("on P's way to its next goroutine", ""),
    "stw": (
        "in stop-the-worlds",
        "fewer collections (a larger GOGC or GOMEMLIMIT), and fewer of what else stops the world "
        "(runtime.ReadMemStats, runtime.Stack of all goroutines, runtime.GOMAXPROCS)",
    ),
}


def _at(row: LostAt) -> str:
    call = row["syscall"] or ("a page fault" if row["state"] == "fault" else "a system call")
    place = None if row["file"] is None else f"{Path(row['file']).name}:{row['line']}"
    if row["runtime_wait"]:
        function = row["function"] or ""
        # Such as the collection that runtime.GC waits for.
        below = "" if function.startswith(_OF_RUNTIME) or not place else f", under {place}"
        return f"in waits of the runtime itself ({call}){below}"
    if place is not None and row["line"] is not None:
        return f"at {place} ({call})"
    if row["function"] is None:
        return f"in {call} whose place in the program is not known"
    return f"at {row['function']} ({call})"


def _for_call(row: LostAt, process: Process) -> str:
    if row["runtime_wait"]:
        return ""
    if row["state"] == "fault":
        return _FOR_FAULT
    ways = ["fewer of these calls at a time", *_one_more_p(process)]
    if row["raw"]:
        ways.insert(
            0, "syscall.Syscall in place of the raw call, so that sysmon can take P from it"
        )
    if row["syscall"] in _POLLABLE or row["syscall"] is None:
        ways.insert(
            0,
            "a descriptor that the network poller waits for (nonblocking before os.NewFile)",
        )
    elif row["syscall"] in _SLEEPS:
        ways.insert(0, "time.Sleep, which holds no P")
    return ", or ".join(ways)


def _one_more_p(process: Process) -> list[str]:
    """GOMAXPROCS one larger: it would have had work for as long as some P was lost.

    Not where one P or more was idle on the average: another would have been idle, too.
    """
    procs = process["procs"]
    if process["states"]["idle"] * procs >= process["p_ns"]:
        return []
    told = process["pressure"].get("total")
    # It needs a CPU, too, and what it runs may block as well: so this is the most.
    gain = (
        f" (that P would have had work for up to {percent_text(told['some_most'])} of the time)"
        if told and told["some_most"]
        else ""
    )
    return [f"GOMAXPROCS {procs} → {procs + 1}{gain}"]


def _for_no_cpu(process: Process) -> tuple[str, str]:
    """What it is called, and what helps, by how much of it a quota did."""
    throttled = process["of_which"]["throttled"]
    what, today = _STATES["no_cpu"]
    if throttled is None:
        return what, f"{today}; whether a CPU quota did it is not known, since no cgroup was asked"
    if 2 * throttled > process["states"]["no_cpu"]:
        return "in which a CPU quota stopped its threads", _quota(process, throttled)
    if throttled > _NEGLIGIBLE * process["p_ns"]:
        return what, f"{today}, or {_quota(process, throttled)}"
    return what, today


def _quota(process: Process, throttled_ns: int) -> str:
    """How many more CPUs the quota had to be: as many as were throttled on the average."""
    total = process["pressure"].get("total")
    fits = "or a GOMAXPROCS that fits the quota"
    if total is None:
        return f"a larger CPU quota (cpu.max), {fits}"
    cpus = throttled_ns / 1e9 / total["seconds"]
    more_ms = duration_text(cpus * _PERIOD_MS * 1e6)
    return (
        f"a CPU quota (cpu.max) larger by {ratio_text(cpus)} CPUs, which is {more_ms} more in "
        f"each period of {_PERIOD_MS} ms, {fits}"
    )


def _by_runtime(process: Process) -> str:
    total = process["p_ns"] or 1
    # No sysmon takes a P from the runtime's own waits, nor from calls that it is not told of.
    own = [
        row
        for row in process["lost_at"]
        if row["state"] == "syscall" and (row["raw"] or row["runtime_wait"])
    ]
    held = process["lost_ns"]["syscall"]
    least = max(held["least"] - sum(row["least"] for row in own), 0)
    most = max(held["most"] - sum(row["most"] for row in own), least)
    if most < _NEGLIGIBLE * total:
        return ""
    share = range_text(100 * least / total, 100 * most / total)
    return (
        f"{share} of P time was lost until sysmon took P from threads in calls; 'pretake whatif' "
        "predicts how much of it would be saved by entersyscallblock (policy block), or by an "
        "event from the kernel at each block (policy sched_out)."
    )


def _others(others: list[Process]) -> str:
    if not others:
        return ""
    named = [f"{process_name(p)} {range_text(*_lost_share(p))}" for p in others[:3]]
    more = f", and {len(others) - 3} more" if len(others) > 3 else ""
    return f"Other processes with Ps, and what they lost: {', '.join(named)}{more}."
