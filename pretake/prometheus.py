"""What ``pretake live`` counts, for Prometheus to read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from analysis.answers.live import TopCalls
from tracer.capture.live import WHATS, lower_ns
from tracer.errors import PretakeError

if TYPE_CHECKING:
    import numpy as np
    from prometheus_client.core import HistogramMetricFamily

    from analysis.answers.live import Call

__all__ = ["UNKNOWN_SITE", "served"]

UNKNOWN_SITE = "unknown"
"""Label of the calls whose stack was not to be had."""

_MEANINGS = {
    "retake": "from a thread's block to its P being taken",
    "harm": "the same, where work waited and nobody else could run it",
}
_BOUNDS = range(4 * 10, 4 * 35, 4)
"""An octave a bucket, from a microsecond to half a minute."""


@contextlib.contextmanager
def served(look: Callable[[], Mapping[Call, np.ndarray]], port: int, most: int) -> Iterator[None]:
    """Serve histograms on loopback.

    Args:
        look: what was counted up to now; called for each question, on another thread.
        port: where.
        most: how many pairs of system call and call site have a series of their own.

    Raises:
        PretakeError: the port is not to be had.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    top = TopCalls(most)

    class Collector:
        def describe(self) -> list[HistogramMetricFamily]:
            return [_family(what) for what in WHATS]

        def collect(self) -> Iterator[HistogramMetricFamily]:
            told = top.look(look())
            for number, what in enumerate(WHATS):
                family = _family(what)
                for call, counts in told.items():
                    labels = [call.syscall, call.site or UNKNOWN_SITE]
                    family.add_metric(labels, _buckets(counts[number]), sum_value=None)
                yield family

    registry = CollectorRegistry()
    registry.register(Collector())
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise PretakeError(
            f"port {port} cannot be served: {error.strerror}", "choose another"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _family(what: str) -> HistogramMetricFamily:
    from prometheus_client.core import HistogramMetricFamily

    return HistogramMetricFamily(
        f"pretake_{what}_seconds", _MEANINGS[what], labels=["syscall", "call_site"]
    )


def _buckets(counts: np.ndarray) -> list[tuple[str, float]]:
    below = counts.cumsum()
    buckets = [(repr(lower_ns(b) / 1e9), float(below[b - 1])) for b in _BOUNDS]
    return [*buckets, ("+Inf", float(below[-1]))]
