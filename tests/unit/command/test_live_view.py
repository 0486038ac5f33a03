"""What ``pretake live`` says of retakes whose length nobody knows."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from pretake.commands.live import _unknown_text
from pretake.prometheus import _Counted


def test_retakes_of_unknown_length_are_told_beside_the_table() -> None:
    assert _unknown_text({}) == []
    (line,) = _unknown_text({"read": 1_234, "futex": 2})
    assert line.endswith("counted in no row: 2 of futex, 1,234 of read")


def test_they_are_a_counter_of_their_own() -> None:
    registry = CollectorRegistry()
    registry.register(_Counted(dict, 3, lambda: {"read": 7}))
    page = generate_latest(registry).decode()
    assert 'pretake_retake_unknown_total{syscall="read"} 7.0' in page
    assert "pretake_retake_seconds_bucket" not in page
