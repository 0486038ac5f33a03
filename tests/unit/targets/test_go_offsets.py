"""Which rows of a table stand in for a version that has none."""

from __future__ import annotations

import pytest

from tracer.targets.buildinfo import BuildInfo
from tracer.targets.go_offsets import (
    CONFIRMED,
    Choice,
    Version,
    offsets_of_build,
    required,
    shipped_offsets,
    version_of,
)

DEVEL, BETA, RC, RELEASE = range(4)


@pytest.mark.parametrize(
    ("text", "version", "plain"),
    [
        ("go1.27.3", Version(27, 3, RELEASE, 0), True),
        ("go1.20", Version(20, 0, RELEASE, 0), True),
        ("go1.27rc1", Version(27, 0, RC, 1), True),
        ("go1.18beta2", Version(18, 0, BETA, 2), True),
        ("go1.28-devel_1a2b3c4", Version(28, 0, DEVEL, 0), False),
        ("go1.20-1a2b3c4", Version(20, 0, DEVEL, 0), False),
        ("go1.23-20240626-RC01", Version(23, 0, DEVEL, 0), False),
        ("go1.23.4-fips", Version(23, 4, RELEASE, 0), False),
        ("go1.18.3b7", Version(18, 3, RELEASE, 0), False),
        ("go1.25.1+vendor", Version(25, 1, RELEASE, 0), False),
    ],
)
def test_a_version_is_read(text: str, version: Version, plain: bool) -> None:
    assert version_of(text) == (version, plain)


@pytest.mark.parametrize("text", ["", "go1", "go2.1", "unknown", "1.27.3", "go1.x", "go1.99999.1"])
def test_what_is_no_version_is_none(text: str) -> None:
    assert version_of(text) is None
    assert offsets_of_build(BuildInfo(text), shipped_offsets()) == Choice()


def test_versions_are_sorted_by_age() -> None:
    ages = ["go1.26.9", "go1.27-devel_1a", "go1.27beta1", "go1.27rc1", "go1.27rc2", "go1.27.0"]
    told = [version_of(text) for text in ages]
    assert told == sorted(told, key=lambda found: found[0] if found else Version(0, 0))


ROWS = {
    # Out of order, as no file has to be sorted.
    "go1.24.11": {"m_p": 208, "m_syscalltick": 764, "p_timer": 8888},
    "go1.24.3": {"m_p": 208, "m_syscalltick": 740, "p_timer": 8888},
    "go1.26.0": {"m_p": 208, "m_syscalltick": 788, "p_timer": 13720},
    "go1.22.10": {"m_p": 208, "m_syscalltick": 952, "p_timer": 4648},
}


@pytest.mark.parametrize(
    ("version", "offsets", "told", "differ"),
    [
        ("go1.24.3", ROWS["go1.24.3"], "go1.24.3", ()),
        # Between two rows of its series: what did not move.
        (
            "go1.24.7",
            {"m_p": 208, "p_timer": 8888},
            "assumed from go1.24.3 and go1.24.11",
            ("m_syscalltick",),
        ),
        # At an end of its series: the nearest row of it, and never one of another.
        ("go1.24.12", ROWS["go1.24.11"], "assumed from go1.24.11", ()),
        ("go1.24.1", ROWS["go1.24.3"], "assumed from go1.24.3", ()),
        ("go1.24rc2", ROWS["go1.24.3"], "assumed from go1.24.3", ()),
        ("go1.26.9-fips", ROWS["go1.26.0"], "assumed from go1.26.0", ()),
        # A vendor's build of a release that has a row.
        ("go1.24.3-fips", ROWS["go1.24.3"], "assumed from go1.24.3", ()),
        # A series without rows, between two: one on each side.
        (
            "go1.23.4",
            {"m_p": 208},
            "assumed from go1.22.10 and go1.24.3",
            ("m_syscalltick", "p_timer"),
        ),
        # Before its series began, a snapshot was of the one before.
        (
            "go1.26-devel_1a2b",
            {"m_p": 208},
            "assumed from go1.24.11 and go1.26.0",
            ("m_syscalltick", "p_timer"),
        ),
    ],
)
def test_the_nearest_rows_stand_in(
    version: str, offsets: dict[str, int], told: str, differ: tuple[str, ...]
) -> None:
    choice = offsets_of_build(BuildInfo(version), ROWS)
    assert (choice.offsets, choice.told, choice.differ) == (offsets, told, differ)
    assert choice.exact == (told == version)
    assert choice.unconfirmed == ()


@pytest.mark.parametrize("version", ["go1.27.0", "go1.27-devel_1a2b", "go1.27rc1", "go1.31.2"])
def test_later_than_all_rows_only_what_a_check_confirms_is_assumed(version: str) -> None:
    choice = offsets_of_build(BuildInfo(version), ROWS)
    assert choice.told == "assumed from go1.26.0"
    assert choice.offsets == {"m_p": 208}
    assert choice.unconfirmed == ("m_syscalltick", "p_timer")


@pytest.mark.parametrize("version", ["go1.21.13", "go1.22-devel_1a2b", "go1.18"])
def test_before_all_rows_nothing_is_assumed(version: str) -> None:
    assert offsets_of_build(BuildInfo(version), ROWS) == Choice()


@pytest.mark.parametrize(
    "info",
    [
        BuildInfo("go1.24.3", ("boringcrypto",)),
        BuildInfo("go1.24.3", (), "(Red Hat 1.24.3-1.el9)"),
    ],
)
def test_a_build_that_is_not_quite_its_version_is_assumed(info: BuildInfo) -> None:
    choice = offsets_of_build(info, ROWS)
    assert (choice.told, choice.exact) == ("assumed from go1.24.3", False)
    assert choice.offsets == ROWS["go1.24.3"]


def test_what_is_confirmed_is_enough_from_go_1_26_on() -> None:
    assert set(required("prunning")) <= set(CONFIRMED)
    assert set(required("psyscall")) - set(CONFIRMED) == {
        "m_oldp",
        "p_syscalltick",
        "m_syscalltick",
    }


def test_go_1_20_lies_between_two_series() -> None:
    choice = offsets_of_build(BuildInfo("go1.20.14"), shipped_offsets())
    assert choice.told == "assumed from go1.19.8 and go1.21.13"
    # The first of these is told by the code of a program.
    assert choice.differ == ("m_syscalltick", "sched_runqsize", "sched_gcwaiting")
