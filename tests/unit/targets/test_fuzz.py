"""Damaged Go programs are read or refused, by a parser that always ends."""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.go import toolchains
from tests.unit.targets.damage import Damaged, Program, damaged, laid_open
from tools.fuzz_targets import PROGRAMS, clocked, read
from tracer.errors import PretakeError
from tracer.targets import jail

pytestmark = pytest.mark.go

INPUTS = int(os.environ.get("PRETAKE_FUZZ", "2000"))
"""Half of them are drawn by hypothesis, which finds the least damage that fails."""
THROUGH_THE_JAIL = 40


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    return [laid_open(toolchains.build(*program)) for program in PROGRAMS]


def test_a_program_laid_open_is_read_as_it_was(programs: list[Program]) -> None:
    for program in programs:
        assert read(Damaged(program, len(program.data)), random.Random(0)) == "whole"


def test_damaged_programs_are_read_or_refused(programs: list[Program]) -> None:
    came: Counter[str] = Counter()
    for seed in range(INPUTS // 2):
        draw = random.Random(10_000_000 + seed)
        file = damaged(programs[seed % len(programs)], draw)
        with clocked():
            came[read(file, draw)] += 1
    # Damage that nobody sees, or that is always seen at the door, would try nothing.
    assert set(came) == {"refused", "no runtime", "partly", "whole"}
    assert came["refused"] > INPUTS / 16


@given(draw=st.randoms(use_true_random=False), number=st.integers(0, len(PROGRAMS) - 1))
@settings(max_examples=max(INPUTS // 2, 1))
def test_drawn_damage_is_read_or_refused(
    programs: list[Program], draw: random.Random, number: int
) -> None:
    with clocked():
        read(damaged(programs[number], draw), draw)


def test_the_jail_answers_for_each(programs: list[Program]) -> None:
    for seed in range(THROUGH_THE_JAIL):
        file = damaged(programs[seed % len(programs)], random.Random(seed))
        fd = os.memfd_create("stranger")
        os.write(fd, file.whole())
        with contextlib.suppress(PretakeError):
            jail.look(fd, Path("stranger"), deep=True)
        os.close(fd)
