"""A distribution of times, as every workload reports one."""

from __future__ import annotations

from collections.abc import Iterable

from reference_runtime.latencies import Latencies

LONGEST_NS = 3_600_000_000_000
SIGNIFICANT_DIGITS = 3


def distribution(times_ns: Iterable[int] | Latencies) -> dict[str, int | None]:
    """Count and percentiles, each with an error below 0.1 %; null where there was nothing.

    Args:
        times_ns: the times, ns; those below 1 count as 1.

    Returns:
        ``count``, ``p50``, ``p90``, ``p99`` and ``max``, ns.
    """
    # Only now: where there is no GIL its C module brings one, and the workload has run by then.
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(1, LONGEST_NS, SIGNIFICANT_DIGITS)
    if isinstance(times_ns, Latencies):
        # A copy: other goroutines may still add to it.
        for time_ns, often in times_ns.seen.copy().items():
            histogram.record_value(min(max(time_ns, 1), LONGEST_NS), often)
    else:
        for time_ns in times_ns:
            histogram.record_value(max(time_ns, 1))
    count = histogram.get_total_count()
    if not count:
        return {"count": 0, "p50": None, "p90": None, "p99": None, "max": None}
    return {
        "count": count,
        "p50": histogram.get_value_at_percentile(50),
        "p90": histogram.get_value_at_percentile(90),
        "p99": histogram.get_value_at_percentile(99),
        "max": histogram.get_max_value(),
    }
