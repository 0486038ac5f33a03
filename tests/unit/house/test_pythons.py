"""Which Pythons ``make wheels`` compiles for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import pythons as finding
from tools.pythons import VERSIONS, pythons
from tracer.errors import PretakeError

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
OTHER, ANOTHER = [version for version in VERSIONS if version != OWN][:2]


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither on PATH nor from Debian."""

    def refuse(version: str) -> Path:
        raise PretakeError(f"no {version} in this test")

    monkeypatch.setattr(finding, "unpacked_python", refuse)
    monkeypatch.setenv("PATH", str(tmp_path))


def program(path: Path, told: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{told}\n")
    path.chmod(0o755)
    return path


def test_those_on_path_and_of_pyenv_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_path = program(tmp_path / f"python{OTHER}", f"echo {OTHER}")
    of_pyenv = program(tmp_path / f"root/versions/3.99/bin/python{ANOTHER}", f"echo {ANOTHER}")
    program(tmp_path / "pyenv", f"echo {tmp_path}/root")
    found = pythons()
    wanted = {OWN: Path(sys.executable), OTHER: on_path, ANOTHER: of_pyenv}
    assert found == wanted
    assert list(found) == [version for version in VERSIONS if version in wanted]
    [missing] = set(VERSIONS) - set(wanted)
    line = f"no wheel for Python {missing}: no {missing} in this test\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("told", ["exit 127", "echo another", "echo 3.10"])
def test_what_is_no_such_python_is_passed_over(tmp_path: Path, told: str) -> None:
    program(tmp_path / f"python{OTHER}", told)
    assert list(pythons()) == [OWN]
    with pytest.raises(PretakeError, match=r"is no CPython from 3\.11 to 3\.14"):
        pythons([str(tmp_path / f"python{OTHER}")])


def test_one_that_is_named_goes_first(tmp_path: Path) -> None:
    program(tmp_path / f"python{OTHER}", f"echo {OTHER}")
    named = program(tmp_path / "mine", f"echo {OTHER}")
    assert pythons(["mine"])[OTHER] == named


def test_one_that_is_not_here_is_taken_from_debian(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "unpacked_python", lambda version: tmp_path / version)
    found = pythons()
    assert found == {v: tmp_path / v if v != OWN else Path(sys.executable) for v in VERSIONS}
