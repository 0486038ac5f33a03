"""A program that is looked at after it ended, while somebody replaces its file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracer.capture import binaries
from tracer.capture.binaries import Binaries, Known
from tracer.capture.layouts import FileIdentity


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return Path(shutil.copy(shutil.which("true") or "/bin/true", tmp_path / "server"))


@pytest.fixture
def looked() -> Iterator[Binaries]:
    own = Binaries()
    yield own
    own.close()


def replace_half(program: Path) -> None:
    """As ``cp`` leaves it where it loses its CPU between two writes."""
    with program.open("r+b") as file:
        file.truncate(program.stat().st_size // 2)


def look(looked: Binaries, program: Path, told: FileIdentity) -> Known:
    known, _ = looked.look(os.open(program, os.O_RDONLY), told)
    return known


def test_what_the_kernel_ran_is_looked_at(looked: Binaries, program: Path) -> None:
    known = look(looked, program, FileIdentity.of(program.stat()))
    assert not known.changed
    assert known.no_runtime is not None
    assert look(looked, program, known.identity) is known


def test_one_that_was_written_since_is_not_known(looked: Binaries, program: Path) -> None:
    told = FileIdentity.of(program.stat())
    replace_half(program)
    assert look(looked, program, told).changed
    # That it is no whole program is true, and not of what ran.
    assert looked.missing == []


def test_nor_is_one_that_is_written_as_the_look_begins(
    looked: Binaries, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, name = FileIdentity.of(program.stat()), binaries._name

    def meanwhile(path: Path) -> str:
        replace_half(program)
        return name(path)

    monkeypatch.setattr(binaries, "_name", meanwhile)
    assert look(looked, program, told).changed
    assert looked.missing == []


def test_nor_is_it_taken_for_the_one_that_replaced_it(looked: Binaries, program: Path) -> None:
    told = FileIdentity.of(program.stat())
    program.write_bytes(Path("/bin/sh").read_bytes())
    other = FileIdentity.of(program.stat())
    known = look(looked, program, other)
    assert not known.changed
    earlier = look(looked, program, told)
    assert earlier is not known
    assert earlier.changed
