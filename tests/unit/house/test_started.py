"""A program of a test ends with the test."""

from __future__ import annotations

import pytest

from tests.kernel.started import Started


def test_a_test_that_fails_does_not_wait_for_its_program() -> None:
    with pytest.raises(AssertionError), Started(["sleep", "1000000"]) as running:
        raise AssertionError
    assert running.returncode == -9
