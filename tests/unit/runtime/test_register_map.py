"""The toy heap: an object is lost exactly where −2 stands and nobody looks at it."""

from __future__ import annotations

import pytest

from reference_runtime.register_map import OURS, PROGRAM, THEIRS, UNSAFE, main, stop_before

LINES = range(len(PROGRAM))
UNSAFE_LINES = [3, 4]
"""After ``u := uintptr(p)``, up to ``p = unsafe.Pointer(u)``, as the article has it."""


def test_the_article_s_unsafe_point_has_no_map() -> None:
    assert [line for line in LINES if PROGRAM[line].pointers == UNSAFE] == UNSAFE_LINES


@pytest.mark.parametrize("line", LINES)
def test_with_the_check_nothing_is_lost(line: int) -> None:
    stop = stop_before(line, check=True)
    # A signal at an unsafe line stops the goroutine at the first line after it that has a map.
    assert stop.stopped == (5 if line in UNSAFE_LINES else line)
    assert (stop.freed, stop.read, stop.lost) == (0, OURS, False)


@pytest.mark.parametrize("line", LINES)
def test_without_it_the_object_is_lost_there_and_nowhere_else(line: int) -> None:
    stop = stop_before(line, check=False)
    assert stop.stopped == line
    if line in UNSAFE_LINES:
        assert (stop.freed, stop.read, stop.lost) == (1, THEIRS, True)
    else:
        assert (stop.freed, stop.read, stop.lost) == (0, OURS, False)


def test_the_program_prints_both_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    told = capsys.readouterr().out
    with_check, without = told.split("the check taken out")
    assert "another" not in with_check
    assert without.count("another goroutine's") == len(UNSAFE_LINES)
