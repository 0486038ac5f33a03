"""What is said where nothing can be built for another architecture."""

from __future__ import annotations

import platform

import pytest

from tools import cross
from tracer.errors import PretakeError


def test_a_compiler_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross.shutil, "which", lambda _: None)
    with pytest.raises(PretakeError) as refused:
        cross.compile_environment("aarch64")
    assert str(refused.value) == (
        "aarch64-linux-gnu-gcc is not installed: tools/setup.sh packages cross"
    )


def test_for_this_machine_bcc_is_told_nothing() -> None:
    assert cross.bcc_environment(platform.machine()) == {}
