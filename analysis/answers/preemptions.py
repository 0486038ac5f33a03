"""Preemptions: each request that a goroutine stop, and the way it went.

A request is a row of kind ``preempt_request``. The signal (``tgkill``) belongs to it if it was
sent before the next request for the same thread; the delivery of a signal belongs to whose signal
it is, also if others asked before it came. Its end is stopped (``preempted``) or refused
(``preempt_refused``, with a reason). What a signal does (an ``async`` stop, or a refusal) belongs
to the request whose signal was delivered last, even if the next one was asked meanwhile; a
``cooperative`` stop to the one that was asked last. A goroutine that refused the signal may stop
later for the same request, at a check or at a line of its code: then it stopped.

Go coalesces requests (``m.signalPending``), so a request may have no signal of its own. Example: a
thread that waits 20 ms for a CPU is asked by sysmon again and again, and stops when the first
request's signal is delivered. That one took 20 ms; the others came while a signal was on its way,
or in its handler, and have no end of their own.

A signal that is delivered in asyncPreempt is refused (Go stops no goroutine in assembly), and has
no part in the stop that follows: that is the one for which an earlier signal's handler went back
to asyncPreempt, which calls asyncPreempt2.

Go does not report a refusal, so it is inferred. If Go's handler accepts, the thread returns into
asyncPreempt, which is probed. So a signal that was delivered and not followed by asyncPreempt was
refused. The reason comes from the interrupted instruction in the binary (table address). If that
instruction is a safe point, the request was not wanted any more: the goroutine had yielded
meanwhile, was not running, or its M held a lock.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.names import syscall_names
from analysis.ptime.tasks import Tasks
from analysis.schema import Field, Frame
from analysis.stats.quantiles import group_quantile
from analysis.windowed import plain
from analysis.windowed.asof import NOT_FOUND, Ints, Timelines, take
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES, UNKNOWN
from tracer.trace.words import RUNTIME_REASONS, SAFE_POINTS

__all__ = [
    "ENDS",
    "INTERRUPTED",
    "LEDGER",
    "PREEMPTIONS",
    "interrupted_calls",
    "ledger",
    "preemptions",
]

ENDS = ("stopped", "refused")
"""How a request ended."""

PREEMPTIONS = Frame(
    "preemptions",
    "one request that a goroutine stop",
    (
        Field("tid", "thread that runs the goroutine"),
        Field("asker_tid", "thread that asked"),
        Field("goid", "goroutine that is asked to stop"),
        Field("p", "P that it runs on"),
        Field("reason", "why it was asked", words=RUNTIME_REASONS),
        Field("asked_ns", "when it was asked"),
        Field("sent_ns", "when the signal was sent to the thread"),
        Field("delivered_ns", "when the kernel delivered it"),
        Field("ended_ns", "when the goroutine stopped, or refused to"),
        Field("pc", "user address that the signal interrupted"),
        Field("function", "function that the address lies in", "str"),
        Field(
            "point",
            "whether a goroutine can be stopped at that address, or why not",
            words=SAFE_POINTS,
        ),
        Field("outcome", "how it ended; null if the trace does not show it", words=ENDS),
        Field("how", "the way it stopped, or why it did not", words=RUNTIME_REASONS),
        Field("part_sent_ns", "part of the latency: from asked to sent"),
        Field("part_delivered_ns", "part of the latency: from sent to delivered"),
        Field("part_stopped_ns", "part: from delivered (or asked, without a signal) to the end"),
        Field("latency_ns", "from asked to stopped; null if it did not stop"),
        Field("interrupted_nr", "system call that the signal interrupted (EINTR), if any"),
        Field(
            "why",
            "how it ended in words, for example: unsafe point in function F; or why it has no end "
            "of its own",
            "str",
        ),
    ),
)

LEDGER = Frame(
    "ledger",
    "the number of requests with one reason that ended in one way",
    (
        Field("reason", "why they were asked", "str"),
        Field("outcome", "how they ended; null if the trace does not show it", "str"),
        Field("why", "the way they stopped, or why they did not", "str"),
        Field("requests", "how many"),
        Field("signals", "how many of them had a signal delivered"),
        Field("interrupted", "how many of those interrupted a system call (EINTR)"),
        Field("sent_p50_ns", "median from asked to sent"),
        Field("delivered_p50_ns", "median from sent to delivered"),
        Field("latency_p50_ns", "median from asked to stopped"),
        Field("latency_p99_ns", "its 99th percentile"),
    ),
)

INTERRUPTED = Frame(
    "interrupted_calls",
    "a system call that SIGURG interrupted (EINTR)",
    (
        Field("nr", "number of the system call, by the architecture of the trace"),
        Field("syscall", "its name", "str"),
        Field("times", "how often it failed with EINTR"),
    ),
)

_KIND = TABLES["runtime"].column("kind")
_SIGNAL = TABLES["signal"].column("kind")
_SIGURG = 23
_STOPPED, _REFUSED = range(2)
_PROBE = "uprobe:runtime.asyncPreempt2"
_STOPPING = "runtime.asyncPreempt"
_JOINED = "an earlier signal was on its way"
_HANDLER_NS = 1_000_000
_END_OF_TIME = np.iinfo(np.int64).max
_REASONS = {word: RUNTIME_REASONS.index(word) for word in ("not_wanted", "unsafe_point")}
_POINTS = {
    "unsafe_point": "unsafe point in function {}",
    "assembly": "assembly function {}",
    "runtime": "the runtime's own function {}",
    "no_go": "no Go code",
}


def preemptions(trace: Trace) -> pd.DataFrame:
    """The preemption requests of a trace.

    Returns:
        A DataFrame of :data:`PREEMPTIONS`, in the order of ``asked_ns``.

    Raises:
        PretakeError: the trace cannot be read.
    """
    runtime = plain.from_arrow("runtime", trace.arrow("runtime"))
    signals = _sigurgs(trace)
    asked = runtime[(runtime["kind"] == _KIND.code("preempt_request"))]
    asked = asked[asked["target_tid"] != UNKNOWN].reset_index(drop=True)
    tid, asked_ns = asked["target_tid"].to_numpy(np.int64), asked["ts_ns"].to_numpy(np.int64)
    after = Timelines(tid, asked_ns).first_after(tid, asked_ns, strictly=True)
    until = take(asked_ns, after, _END_OF_TIME)
    sent = signals[signals["kind"] == _SIGNAL.code("tgkill")]
    sent_ns = take(sent["ts_ns"], _first(sent, tid, asked_ns, until), UNKNOWN)
    delivered = signals[signals["kind"] == _SIGNAL.code("deliver")]
    places = _places(trace, delivered)
    acts = places.function != _STOPPING
    owner = _owners(delivered, sent, asked, sent_ns)
    came = _first_of_each(owner, delivered["ts_ns"].to_numpy(), len(asked))
    delivered_ns = take(delivered["ts_ns"], came, UNKNOWN)
    ways = _ways(runtime)
    done = runtime[ways.by_signal | ways.refused]
    free_ns = _free_ns(done, delivered[acts], owner[acts], tid, asked_ns)
    since = np.where(take(acts, came, False), delivered_ns, free_ns)
    of_signal = (since, take(since, after, _END_OF_TIME))
    end = _ends(runtime, ways, tid, of_signal, (asked_ns, until))
    stopped = take(runtime["kind"], end, UNKNOWN) == _KIND.code("preempted")
    ended_ns = take(runtime["ts_ns"], end, UNKNOWN)
    function, point = places.at(came)
    outcome = np.where(end == NOT_FOUND, UNKNOWN, np.where(stopped, _STOPPED, _REFUSED))
    how = take(runtime["reason"], end, UNKNOWN)
    if _PROBE in trace.manifest.attached:
        # Its last moments tell of no end, since the probes may be gone before it.
        last_ns = (trace.manifest.end_ns or _END_OF_TIME) - _HANDLER_NS
        silent = (outcome == UNKNOWN) & (delivered_ns != UNKNOWN) & (delivered_ns < last_ns)
        outcome = np.where(silent, _REFUSED, outcome)
        safe = point == SAFE_POINTS.index("safe")
        because = np.where(safe, _REASONS["not_wanted"], _REASONS["unsafe_point"])
        how = np.where(silent & (point != UNKNOWN), because, how)
    why = _in_words(outcome, how, point, function)
    why[(outcome == UNKNOWN) & (free_ns > asked_ns)] = _JOINED
    before_end = np.where(delivered_ns == UNKNOWN, asked_ns, delivered_ns)
    return PREEMPTIONS.finish(
        {
            "tid": tid,
            "asker_tid": asked["tid"].to_numpy(np.int64),
            "goid": asked["goid"].to_numpy(np.int64),
            "p": asked["p"].to_numpy(np.int64),
            "reason": asked["reason"].to_numpy(np.int64),
            "asked_ns": asked_ns,
            "sent_ns": sent_ns,
            "delivered_ns": delivered_ns,
            "ended_ns": ended_ns,
            "pc": take(delivered["pc"], came, UNKNOWN),
            "function": function,
            "point": point,
            "outcome": outcome,
            "how": how,
            "why": why,
            "part_sent_ns": _elapsed(sent_ns, asked_ns),
            "part_delivered_ns": _elapsed(delivered_ns, sent_ns),
            "part_stopped_ns": _elapsed(ended_ns, before_end),
            "latency_ns": np.where(stopped, _elapsed(ended_ns, asked_ns), UNKNOWN),
            "interrupted_nr": take(delivered["interrupted_nr"], came, UNKNOWN),
        }
    )


def interrupted_calls(trace: Trace) -> pd.DataFrame:
    """The system calls that SIGURG interrupted, so that they failed with EINTR.

    Calls that the kernel restarts by itself are not among them, since their caller sees nothing.
    Signals are counted whoever sent them, so this works for a program whose offsets are unknown.

    Returns:
        A DataFrame of :data:`INTERRUPTED`, the most frequent first.

    Raises:
        PretakeError: the trace cannot be read.
    """
    signals = _sigurgs(trace)
    numbers = signals.loc[signals["interrupted_nr"] != UNKNOWN, "interrupted_nr"]
    counts = numbers.value_counts()
    nr = counts.index.to_numpy(np.int64)
    names = np.array(syscall_names(nr, trace.manifest.arch), object)
    return INTERRUPTED.finish({"nr": nr, "syscall": names, "times": counts.to_numpy(np.int64)})


def _sigurgs(trace: Trace) -> pd.DataFrame:
    signals = plain.from_arrow("signal", trace.arrow("signal"))
    return signals[signals["signo"] == _SIGURG]


class _Ways(NamedTuple):
    """Which rows of table runtime are stops by a signal, stops at a check, and refusals."""

    by_signal: np.ndarray
    by_check: np.ndarray
    refused: np.ndarray


def _ways(runtime: pd.DataFrame) -> _Ways:
    kind, reason = runtime["kind"].to_numpy(), runtime["reason"].to_numpy()
    stops = kind == _KIND.code("preempted")
    checked = stops & (reason == RUNTIME_REASONS.index("cooperative"))
    return _Ways(stops & ~checked, checked, kind == _KIND.code("preempt_refused"))


def _ends(
    runtime: pd.DataFrame,
    ways: _Ways,
    tid: Ints,
    of_signal: tuple[Ints, Ints],
    of_check: tuple[Ints, Ints],
) -> Ints:
    """The place in the table of each request's stop; of its first refusal if it never stopped.

    Args:
        runtime: the table.
        ways: of its rows.
        tid: thread of each request.
        of_signal: from when until when what a signal does belongs to each request.
        of_check: likewise, of stops at a check.
    """

    def first(chosen: np.ndarray, since: Ints, until: Ints) -> Ints:
        found = _first(runtime[chosen], tid, since, until)
        return take(np.flatnonzero(chosen), found, NOT_FOUND)

    by_signal = first(ways.by_signal, *of_signal)
    by_check = first(ways.by_check, *of_check)
    ts_ns = runtime["ts_ns"]
    signal_first = take(ts_ns, by_signal, _END_OF_TIME) <= take(ts_ns, by_check, _END_OF_TIME)
    stop = np.where(signal_first, by_signal, by_check)
    return np.where(stop == NOT_FOUND, first(ways.refused, *of_signal), stop)


def _owners(
    delivered: pd.DataFrame, sent: pd.DataFrame, asked: pd.DataFrame, own_sent_ns: Ints
) -> Ints:
    """The request to which each delivery of a signal belongs, as its place in the table.

    It is the one that sent the signal; of a signal that was sent by nobody (its record is lost, or
    it was sent otherwise), the one that was asked last, unless that one has yet to send its own.

    Args:
        delivered: rows of table signal that tell when one came.
        sent: those that tell when one was sent.
        asked: the requests.
        own_sent_ns: when each of them sent its signal.
    """
    tid, ts_ns = delivered["tid"], delivered["ts_ns"]
    sends = Timelines(sent["tid"], sent["ts_ns"]).last_before(tid, ts_ns)
    sent_ns = take(sent["ts_ns"], sends, UNKNOWN)
    before = Timelines(tid, ts_ns).last_before(tid, ts_ns, strictly=True)
    pending = sent_ns > take(ts_ns, before, UNKNOWN)
    requests = Timelines(asked["target_tid"], asked["ts_ns"])
    owner = requests.last_before(tid, np.where(pending, sent_ns, ts_ns))
    return np.where(ts_ns < take(own_sent_ns, owner, UNKNOWN), NOT_FOUND, owner)


def _first_of_each(owner: Ints, ts_ns: Ints, count: int) -> Ints:
    """The first delivery of each request."""
    first = np.full(count, NOT_FOUND, np.int64)
    backwards = np.argsort(-ts_ns, kind="stable")
    backwards = backwards[owner[backwards] != NOT_FOUND]
    first[owner[backwards]] = backwards
    return first


def _free_ns(
    done: pd.DataFrame, delivered: pd.DataFrame, owner: Ints, tid: Ints, asked_ns: Ints
) -> Ints:
    """When no signal from before a request is at work any more in the thread that is asked.

    It is the moment of the request, or, if a signal was on its way just then or in the thread's
    handler, the one after what that signal did.

    Args:
        done: rows of table runtime that tell what a signal did.
        delivered: rows of table signal that tell when one came.
        owner: the request of each of those.
        tid: thread of each request.
        asked_ns: moment of each.
    """
    signals = Timelines(delivered["tid"], delivered["ts_ns"])
    coming = signals.first_after(tid, asked_ns, strictly=True)
    of_earlier = take(take(asked_ns, owner, _END_OF_TIME), coming, _END_OF_TIME) < asked_ns
    came = np.where(of_earlier, coming, signals.last_before(tid, asked_ns))
    came_ns = take(delivered["ts_ns"], came, _END_OF_TIME)
    following = signals.first_after(tid, came_ns, strictly=True)
    until = take(delivered["ts_ns"], following, _END_OF_TIME)
    done_ns = take(done["ts_ns"], _first(done, tid, came_ns, until), UNKNOWN)
    free_ns = np.where(of_earlier, came_ns + 1, asked_ns)
    return np.where(done_ns > asked_ns, done_ns + 1, free_ns)


def _first(events: pd.DataFrame, tid: Ints, since: Ints, until: Ints) -> Ints:
    """The first event of each thread since a moment and before another."""
    lines = Timelines(events["tid"], events["ts_ns"])
    found = lines.first_after(tid, since)
    inside = take(events["ts_ns"], found, UNKNOWN) < until
    return np.where(inside, found, NOT_FOUND)


def _elapsed(later: Ints, earlier: Ints) -> Ints:
    known = (later != UNKNOWN) & (earlier != UNKNOWN) & (later >= earlier)
    return np.where(known, later - earlier, UNKNOWN)


class _Places(NamedTuple):
    """Where each signal met its thread: the function, and whether that can be stopped there."""

    function: np.ndarray
    point: Ints

    def at(self, rows: Ints) -> _Places:
        """The places of some signals; without function and point where a row is not found."""
        found = rows != NOT_FOUND
        function = np.full(len(rows), None, object)
        function[found] = self.function[rows[found]]
        return _Places(function, take(self.point, rows, UNKNOWN))


def _places(trace: Trace, delivered: pd.DataFrame) -> _Places:
    """The place of each signal that was delivered, from table address."""
    known = plain.from_arrow("address", trace.arrow("address"))
    function = np.full(len(delivered), None, object)
    if len(known) == 0:
        return _Places(function, np.full(len(delivered), UNKNOWN))
    tasks = {str(name): values for name, values in trace.frame("task").items()}
    tid, ts_ns = (delivered[name].to_numpy(np.int64) for name in ("tid", "ts_ns"))
    pid = Tasks(tasks, trace.manifest.pid).pid(tid, ts_ns)
    index = pd.MultiIndex.from_frame(known[["pid", "generation", "pc"]])
    wanted = pd.MultiIndex.from_arrays([pid, delivered["generation"], delivered["pc"]])
    first = ~index.duplicated()
    at = index[first].get_indexer(wanted)
    rows = known[first]
    function[at >= 0] = rows["function"].to_numpy(object)[at[at >= 0]]
    return _Places(function, take(rows["preemption"], at, UNKNOWN))


def _in_words(outcome: Ints, how: Ints, point: Ints, function: np.ndarray) -> np.ndarray:
    words = np.full(len(outcome), None, object)
    for i, reason in enumerate(how):
        if reason == UNKNOWN:
            continue
        words[i] = RUNTIME_REASONS[reason].replace("_", " ")
        if outcome[i] == _REFUSED and reason == _REASONS["unsafe_point"] and point[i] != UNKNOWN:
            words[i] = _POINTS.get(SAFE_POINTS[point[i]], words[i]).format(function[i])
    return words


def ledger(requests: pd.DataFrame) -> pd.DataFrame:
    """Count requests by why they were asked and how they ended.

    Args:
        requests: a table of :data:`PREEMPTIONS`.

    Returns:
        A DataFrame of :data:`LEDGER`, the most frequent first.
    """
    keys = [requests[name].astype(object) for name in ("reason", "outcome", "why")]
    keys = [key.where(key.notna(), None) for key in keys]
    groups = requests.groupby(keys, dropna=False)
    columns = {
        "requests": groups.size(),
        "signals": groups["delivered_ns"].count(),
        "interrupted": groups["interrupted_nr"].count(),
    }
    for name, column, share in (
        ("sent_p50_ns", "part_sent_ns", 0.5),
        ("delivered_p50_ns", "part_delivered_ns", 0.5),
        ("latency_p50_ns", "latency_ns", 0.5),
        ("latency_p99_ns", "latency_ns", 0.99),
    ):
        columns[name] = group_quantile(groups[column], share)
    rows = pd.DataFrame(columns).reset_index().sort_values("requests", ascending=False)
    return LEDGER.finish_rows(rows)
