"""The table of kernels: what is written of what a kernel did, and when the run fails."""

from __future__ import annotations

from tests.kernels.images import Kernel
from tests.kernels.run import table, wrong

KERNEL = Kernel("6.1", "bookworm", ())
REFUSED = Kernel("5.10", "bullseye", (), refused="has no task storage")


def test_a_mode_that_fails_is_wrong() -> None:
    assert wrong(KERNEL, {"live": True, "check": "exit 1: no"}) == ["check"]
    assert wrong(KERNEL, {"live": True, "check": True}) == []


def test_a_refused_kernel_has_to_refuse_and_to_say_why() -> None:
    why = "exit 2: Linux 5.10 has no task storage: run a later one"
    assert wrong(REFUSED, {"live": why, "record --backend perf": True}) == []
    assert wrong(REFUSED, {"live": True, "record --backend perf": True}) == ["live"]
    assert wrong(REFUSED, {"live": "Traceback", "record --backend perf": True}) == ["live"]
    assert wrong(REFUSED, {"live": why, "record --backend perf": why}) == ["record --backend perf"]


def test_the_table_has_a_row_for_each_mode_and_each_reason_once() -> None:
    figures = {
        "5.10": {
            "kernel": "5.10.0-32",
            "arch": "x86_64",
            "modes": {"live": "no X", "check": "no X"},
        },
        "6.1": {"kernel": "6.1.0-50", "arch": "x86_64", "modes": {"live": True}},
    }
    assert table(figures).splitlines() == [
        "| | 5.10.0-32, x86_64 | 6.1.0-50, x86_64 |",
        "|---|---|---|",
        "| `live` | no (1) | works |",
        "| `check` | no (1) | no (2) |",
        "",
        "1. no X",
        "2. not tried",
    ]
