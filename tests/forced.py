"""Tests that this machine cannot run: skipped with a word on how to force them, or failed."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

__all__ = ["KERNEL", "lacking"]

KERNEL = "PRETAKE_FORCE_KERNEL"


def lacking(why: str, variable: str) -> NoReturn:
    """Skip the test at hand; where the environment has ``variable``, as in CI, fail it."""
    if os.environ.get(variable):
        pytest.fail(f"{why}, and {variable} is set", pytrace=False)
    pytest.skip(f"{why} (force with {variable}=1)")
