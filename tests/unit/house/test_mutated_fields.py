"""Every offset that is read in a target's memory is read wrongly in some test, which finds it."""

from __future__ import annotations

from tests.go import test_capture_mutants, test_look_mutants
from tests.kernel import test_reference_looks
from tracer.targets.layout import LAYOUT_DTYPE

ELSEWHERE = {
    "p_timer": "tests/go/test_looks.py",
    "sched_gcwaiting": "tests/go/test_looks.py",
    "model": "tests/go/test_capture_mutants.py",
    # Wrong, nothing at all is found: tests/go/test_matrix.py has programs at other addresses.
    "bias": "tests/go/test_matrix.py",
    "first_code": "tests/go/test_matrix.py",
    "callers": "tests/go/test_retake.py",
    # No offset: numbers as small as these, little-endian, are alike in 4 bytes and in 8.
    "int_size": "",
}


def test_no_field_is_without_a_mutant() -> None:
    mutated = {
        *test_capture_mutants.FIELDS,
        *test_capture_mutants.QUEUES,
        *test_capture_mutants.SCHED,
        *test_capture_mutants.TO_1_25,
        *test_look_mutants.EIGHT_BYTES,
        *test_look_mutants.FOUR_BYTES,
        *test_reference_looks.FIELDS,
    }
    assert set(LAYOUT_DTYPE.names or ()) == mutated | ELSEWHERE.keys()
