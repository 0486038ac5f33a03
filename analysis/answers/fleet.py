"""Where P time was lost in many traces of many hosts: causes, call sites, hosts that stand apart.

Example: 1,000 dumps of 40 hosts. ``main.readConfig`` in ``read`` lost 412 s of P time on 38 of
them, and host7 lost 9 % of its P time where the median of the others is 0.8 %.

One trace gives one small :class:`Part`, and two parts give one that is no larger than it must be
(:func:`merged`). So the memory is that of the hosts and call sites, and not of the traces. All
figures are sums of whole numbers: in which order parts are merged makes no difference, until there
are more than :data:`MOST_SITES` call sites.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypedDict

from analysis.answers.budget import budget
from analysis.answers.cluster import fold_places
from analysis.answers.found import Found
from tracer.errors import PretakeError
from tracer.trace.reader import Trace

__all__ = ["MOST_SITES", "Fleet", "Host", "Part", "fleet", "merged", "part_of", "told_of"]

MOST_SITES: Final = 2_000
"""Call sites that are kept apart; of more, those with the least loss are summed up as others."""
_MOST_HOSTS: Final = 1_000
"""Hosts of one cause or call site that are told apart; of more, their number is a least one."""
_MOST_PODS: Final = 10_000
"""Pods, likewise."""
_MOST_PROBLEMS: Final = 50
_TIMES: Final = 2.0
_MORE: Final = 0.01
_FEW: Final = 3


class Site(NamedTuple):
    """Where P time was lost.

    Args:
        function: which made the call; None where no stack tells.
        syscall: its name; None for what is no call, as a page fault.
        state: the cause, one of the states in which a P can be lost.
        runtime_wait: the runtime itself sleeps there (:class:`analysis.answers.where.Site`).
    """

    function: str | None
    syscall: str | None
    state: str
    runtime_wait: bool = False


@dataclass
class Sum:
    """Sums over traces, in ns of P time.

    Args:
        traces: how many have any of it.
        p_ns: all P time; 0 where that is no question, as of a call site.
        least: lost for certain; most: lost perhaps.
        holds: how often a P was held.
        hosts: on which ones; pods: in which ones, by their uids.
    """

    traces: int = 0
    p_ns: int = 0
    least: int = 0
    most: int = 0
    holds: int = 0
    hosts: set[str] = field(default_factory=set)
    pods: set[str] = field(default_factory=set)

    def add(self, other: Sum) -> None:
        """Take another one in."""
        self.traces += other.traces
        self.p_ns += other.p_ns
        self.least += other.least
        self.most += other.most
        self.holds += other.holds
        if len(self.hosts) < _MOST_HOSTS:
            self.hosts |= other.hosts
        if len(self.pods) < _MOST_PODS:
            self.pods |= other.pods


@dataclass
class Part:
    """What some traces tell.

    Args:
        hosts: by name; causes: by the state in which a P was lost; sites: by call site.
        traces: how many could be read.
        blind: those of them in which no process had a P that could be read.
        unreadable: places that could not.
        problems: some of them: where, and why.
        others: sites that are not kept apart.
    """

    hosts: dict[str, Sum] = field(default_factory=dict)
    causes: dict[str, Sum] = field(default_factory=dict)
    sites: dict[Site, Sum] = field(default_factory=dict)
    others: Sum = field(default_factory=Sum)
    traces: int = 0
    blind: int = 0
    unreadable: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


class Host(TypedDict):
    """One host.

    Keys:
        share_least, share_most: what was lost of its P time; None where no P could be read.
        apart: whether it stands apart; None where that cannot be said.
        why: why not, or what is to be known of the verdict.
    """

    host: str
    traces: int
    p_ns: int
    least: int
    most: int
    share_least: float | None
    share_most: float | None
    apart: bool | None
    why: str


class Fleet(TypedDict):
    """What :func:`fleet` returns; lost P time in ns, the most first."""

    traces: int
    blind: int
    unreadable: int
    problems: list[dict[str, str]]
    hosts: list[Host]
    causes: list[dict[str, Any]]
    sites: list[dict[str, Any]]
    other_sites: dict[str, Any]


def fleet(found: Found, scheduler: str | None = None) -> Fleet:
    """Rank causes and call sites of lost P time over traces.

    Args:
        found: the traces; what is no trace is counted.
        scheduler: address of a Dask scheduler; None stays in this process.

    Raises:
        PretakeError: the scheduler cannot be reached.
    """
    part = fold_places(part_of, _failed, merged, found.places, scheduler) or Part()
    for place, problem in found.problems:
        part = merged(part, _failed(place, PretakeError(problem)))
    return told_of(part)


def part_of(trace: Trace) -> Part:
    """What one trace tells.

    Raises:
        PretakeError: it cannot be read.
    """
    host = trace.manifest.host or "unknown"
    own, part = Sum(traces=1, hosts={host}), Part(traces=1)
    processes = budget(trace)["processes"]
    part.blind = 0 if processes else 1
    part.hosts[host] = own
    for process in processes:
        own.p_ns += process["p_ns"]
        pods = {process["pod"]} if process["pod"] else set()
        for state, lost in process["lost_ns"].items():
            own.least += lost["least"]
            own.most += lost["most"]
            if lost["most"]:
                cause = part.causes.setdefault(state, Sum(traces=1, hosts={host}))
                cause.least += lost["least"]
                cause.most += lost["most"]
                cause.pods |= pods
        for row in process["lost_at"]:
            site = Site(row["function"], row["syscall"], row["state"], row["runtime_wait"])
            at = part.sites.setdefault(site, Sum(traces=1, hosts={host}))
            at.least += row["least"]
            at.most += row["most"]
            at.holds += row["holds"]
            at.pods |= pods
    return part


def merged(a: Part, b: Part) -> Part:
    """Both, in one that may be ``a`` itself."""
    for into, new in ((a.hosts, b.hosts), (a.causes, b.causes), (a.sites, b.sites)):
        _add_all(into, new)
    a.others.add(b.others)
    a.traces += b.traces
    a.blind += b.blind
    a.unreadable += b.unreadable
    a.problems = [*a.problems, *b.problems][:_MOST_PROBLEMS]
    if len(a.sites) > MOST_SITES:
        ranked = _ranked(a.sites)
        a.sites = dict(ranked[:MOST_SITES])
        for _, least in ranked[MOST_SITES:]:
            a.others.add(least)
    return a


def told_of(part: Part) -> Fleet:
    """The answer, from the sums over all traces."""
    total_ns = sum(host.p_ns for host in part.hosts.values())
    return {
        "traces": part.traces,
        "blind": part.blind,
        "unreadable": part.unreadable,
        "problems": [{"trace": place, "problem": problem} for place, problem in part.problems],
        "hosts": _hosts(part.hosts),
        "causes": [
            {"state": state, **_told(told), "share_least": _share(told.least, total_ns)}
            for state, told in _ranked(part.causes)
        ],
        "sites": [
            {**site._asdict(), **_told(told), "holds": told.holds}
            for site, told in _ranked(part.sites)
        ],
        "other_sites": {"least": part.others.least, "most": part.others.most},
    }


def _hosts(hosts: Mapping[str, Sum]) -> list[Host]:
    """Every host, with whether it stands apart.

    The rule: a host stands apart if it lost for certain more than twice what the median of the
    other hosts lost at most, as a share of its P time, and at least 1 % of its P time more.

    Why so: the median is not moved by the few hosts that are looked for. Dumps are written at
    bad moments, and a host has few of them, so how much its own share varies is not known, and a
    test that needs it would promise too much; a factor is something that one can act on. Twice of
    next to nothing is nothing, hence the 1 %. *For certain* against *at most*, so that no host
    stands apart for P time that nobody knows. With fewer than three hosts "the others" are one.
    """
    shares = {name: _share(host.most, host.p_ns) for name, host in hosts.items()}
    rows: list[Host] = []
    for name, host in _ranked(hosts):
        least = _share(host.least, host.p_ns)
        others = [share for other, share in shares.items() if other != name and share is not None]
        verdict: bool | None = None
        why = ""
        if least is None:
            why = "no P could be read"
        elif len(others) < _FEW - 1:
            why = f"fewer than {_FEW} hosts have a figure"
        else:
            middle = statistics.median(others)
            verdict = least > _TIMES * middle and least >= middle + _MORE
            if host.traces == 1:
                why = "one trace only"
        rows.append(
            {
                "host": name,
                "traces": host.traces,
                "p_ns": host.p_ns,
                "least": host.least,
                "most": host.most,
                "share_least": least,
                "share_most": shares[name],
                "apart": verdict,
                "why": why,
            }
        )
    return sorted(rows, key=lambda row: -(row["share_least"] or 0.0))


def _failed(place: str, error: Exception) -> Part:
    lines = str(error).splitlines()
    text = lines[0] if lines else type(error).__name__
    if not isinstance(error, PretakeError):
        text = f"{type(error).__name__}: {text}"
    return Part(unreadable=1, problems=[(place, text)])


def _told(told: Sum) -> dict[str, Any]:
    return {
        "least": told.least,
        "most": told.most,
        "traces": told.traces,
        "hosts": len(told.hosts),
        "every_host": len(told.hosts) < _MOST_HOSTS,
        "pods": len(told.pods),
        "every_pod": len(told.pods) < _MOST_PODS,
    }


def _share(ns: int, p_ns: int) -> float | None:
    return ns / p_ns if p_ns else None


def _add_all(into: dict[Any, Sum], new: Mapping[Any, Sum]) -> None:
    for key, told in new.items():
        into.setdefault(key, Sum()).add(told)


def _ranked(sums: Mapping[Any, Sum]) -> Sequence[tuple[Any, Sum]]:
    """The most loss first; of the same loss, in the order of their names."""
    return sorted(sums.items(), key=lambda item: (-item[1].least, -item[1].most, str(item[0])))
