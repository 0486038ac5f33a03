"""What the benchmark makes of two commands' times, on times made by hand."""

from __future__ import annotations

from bench.beside_perf import PERF, SUMMARY, Took, compared, lost, row

TOOK = {
    SUMMARY: [Took(3.0, 4.0), Took(1.0, 1.0), Took(2.0, 9.0)],
    PERF: [Took(2.0, 2.0), Took(4.0, 4.0), Took(2.0, 3.0)],
}


def test_a_ratio_is_of_a_pair_and_the_medians_are_told_beside_it() -> None:
    """The medians of the ratios 1.5, 0.25, 1 and 2, 0.25, 3; by events, 4 of perf's to one."""
    found = compared(TOOK, {SUMMARY: 1_000_000, PERF: 4_000_000})
    assert found == {
        "events": {SUMMARY: 1_000_000, PERF: 4_000_000},
        "cpu_s": {SUMMARY: 2.0, PERF: 2.0},
        "wall_s": {SUMMARY: 4.0, PERF: 3.0},
        "cpu_ns_per_event": {SUMMARY: 2_000.0, PERF: 500.0},
        "pairs": 3,
        "summary_to_perf": {
            "cpu": 1.0,
            "cpu_least": 0.25,
            "cpu_most": 1.5,
            "wall": 2.0,
            "cpu_per_event": 4.0,
        },
    }
    assert row(found) == (
        "pretake summary of 1,000,000 events: 2.00 s of CPU time, 4.00 s, "
        "perf sched latency of 4,000,000 events: 2.00 s of CPU time, 3.00 s; "
        "1.00 times perf's CPU time (0.25-1.50, 3 pairs), 2.00 by the wall, 4.00 by events"
    )


def test_what_perf_lost_is_what_it_says() -> None:
    assert lost("  INFO: 0.031% lost events (1234 out of 3970000, in 2 chunks)\n") == 1234
    assert lost("  INFO: 11.521% context switch bugs (25 out of 217)\n") == 0
