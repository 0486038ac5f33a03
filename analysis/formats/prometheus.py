"""Budgets as metrics for Prometheus: stall time by cause, as /proc/pressure has it, and P time.

Counters have the whole time since the process began, in seconds; gauges the averages over 10, 60
and 300 s (:mod:`analysis.answers.pressure`), as ratios. Label ``bound`` is ``least`` or ``most``:
what a trace cannot tell lies between the two. Labels ``container`` and ``pod`` are empty where the
process is in none. Any cause has metrics of its own, since causes
overlap: no sum over ``cause`` is right.

Example: ``rate(pretake_stall_seconds_total{kind="some",cause="fault",bound="least"}[1m])`` is the
share of time in which some P was lost to page faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from analysis.answers.pressure import KINDS, ProcessPressure, Stall, kind_of

__all__ = ["families", "text"]

_TOLD: Final = ("comm", "container", "pod")
_PROCESS: Final = ("pid", *_TOLD)
_KIND = "kind"
_SOME_FULL = "some: a P was lost while work waited; full: and no P ran a goroutine"


def families(processes: Sequence[ProcessPressure]) -> Iterator[Metric]:
    """The metrics of some processes; without any, only what there would be."""
    stall = CounterMetricFamily(
        "pretake_stall_seconds",
        f"Time in which P time was lost to the cause ({_SOME_FULL})",
        labels=(*_PROCESS, "cause", _KIND, "bound"),
    )
    stall_any = CounterMetricFamily(
        "pretake_stall_any_seconds",
        f"Time in which P time was lost to whatever cause ({_SOME_FULL})",
        labels=(*_PROCESS, _KIND, "bound"),
    )
    share = GaugeMetricFamily(
        "pretake_stall_ratio",
        "The same as a share of time, a plain average over the window",
        labels=(*_PROCESS, "cause", _KIND, "bound", "window"),
    )
    share_any = GaugeMetricFamily(
        "pretake_stall_any_ratio",
        "The same of whatever cause",
        labels=(*_PROCESS, _KIND, "bound", "window"),
    )
    p_time = CounterMetricFamily(
        "pretake_p_seconds",
        "P time by what P did; all states add up to GOMAXPROCS x time",
        labels=(*_PROCESS, "state"),
    )
    procs = GaugeMetricFamily("pretake_gomaxprocs", "Number of Ps", labels=_PROCESS)
    for process in processes:
        own = (str(process["pid"]), *(process[name] or "" for name in _TOLD))
        for state, ns in process["states"].items():
            p_time.add_metric((*own, state), ns / 1e9)
        procs.add_metric(own, process["procs"])
        for window, told in process["pressure"].items():
            for cause, stalled in (("", told["any"]), *told["causes"].items()):
                for kind in KINDS:
                    labels = (*own, *([cause] if cause else []), kind)
                    its = kind_of(stalled, kind)
                    if window == "total":
                        _add_seconds(stall if cause else stall_any, labels, its)
                    else:
                        _add_ratio(share if cause else share_any, labels, window, its)
    yield from (stall, stall_any, share, share_any, p_time, procs)


def text(processes: Sequence[ProcessPressure]) -> str:
    """The metrics in Prometheus's text format, as for node_exporter's textfile collector."""
    registry = CollectorRegistry()
    registry.register(_Fixed(processes))
    return generate_latest(registry).decode()


class _Fixed(Collector):
    def __init__(self, processes: Sequence[ProcessPressure]) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        yield from families(self._processes)


def _add_seconds(family: CounterMetricFamily, labels: tuple[str, ...], stall: Stall) -> None:
    family.add_metric((*labels, "least"), stall["least_ns"] / 1e9)
    family.add_metric((*labels, "most"), stall["most_ns"] / 1e9)


def _add_ratio(
    family: GaugeMetricFamily, labels: tuple[str, ...], window: str, stall: Stall
) -> None:
    family.add_metric((*labels, "least", window), stall["least"] / 100)
    family.add_metric((*labels, "most", window), stall["most"] / 100)
