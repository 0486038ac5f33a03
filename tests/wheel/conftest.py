"""The files that are tested: those of ``make wheels``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

WHEELS: Final = "PRETAKE_WHEELS"


@pytest.fixture(scope="session")
def files() -> dict[str, Path]:
    """The sources and both wheels, by ``sources``, ``compiled`` and ``interpreted``."""
    folder = os.environ.get(WHEELS)
    if folder is None:
        pytest.skip(f"no wheels are built (make test-wheel builds them, and sets {WHEELS})")
    found = sorted(Path(folder).glob("pretake-*"))
    [interpreted] = [path for path in found if path.name.endswith("-py3-none-any.whl")]
    [compiled] = [path for path in found if path.suffix == ".whl" and path != interpreted]
    [sources] = [path for path in found if path.name.endswith(".tar.gz")]
    return {"sources": sources, "compiled": compiled, "interpreted": interpreted}
