"""What a test needs is told by its folder, and by no other folder's."""

from __future__ import annotations

import pytest


def test_a_unit_test_needs_no_kernel_no_go_and_no_browser(request: pytest.FixtureRequest) -> None:
    """In a run of the whole suite, as root or not."""
    for marker in ("kernel", "go", "browser", "every"):
        assert request.node.get_closest_marker(marker) is None
