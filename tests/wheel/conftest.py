"""The files that are tested: those of ``make wheels``."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Final

import pytest

WHEELS: Final = "PRETAKE_WHEELS"


@pytest.fixture(scope="session")
def compiled() -> list[Path]:
    """The wheels with compiled modules."""
    return [path for path in _made() if path.suffix == ".whl" and not _interpreted(path)]


@pytest.fixture(scope="session")
def files(compiled: list[Path]) -> dict[str, Path]:
    """The sources and two wheels, by ``sources``, ``compiled`` and ``interpreted``.

    The compiled one is that for the Python which runs the tests.
    """
    own = f"-cp{sys.version_info[0]}{sys.version_info[1]}-"
    [mine] = [p for p in compiled if own in p.name and p.stem.endswith(platform.machine())]
    [interpreted] = [path for path in _made() if _interpreted(path)]
    [sources] = [path for path in _made() if path.name.endswith(".tar.gz")]
    return {"sources": sources, "compiled": mine, "interpreted": interpreted}


def _made() -> list[Path]:
    folder = os.environ.get(WHEELS)
    if folder is None:
        pytest.skip(f"no wheels are built (make test-wheel builds them, and sets {WHEELS})")
    return sorted(Path(folder).resolve().glob("pretake-*"))


def _interpreted(path: Path) -> bool:
    return path.name.endswith("-py3-none-any.whl")
