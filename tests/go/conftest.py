"""Programs here run with one P, so that what waits for a P waits for that one."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_p(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMAXPROCS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.kernel)
        item.add_marker(pytest.mark.go)
