"""Which offsets the shipped table tells of a Go version that it may not have.

Example: the table has go1.24.3 and go1.24.11, and a stripped program is of go1.24.7. What both
rows say alike is *assumed* of it; of what they say differently (``m.syscalltick`` moved in
between) nothing is known, unless the program's own code tells (``go_data.py``).

Which rows stand in for a version:

======================================  =========================================================
the version                             rows
======================================  =========================================================
has a row                               that one
has a row, but is a vendor's            that one, assumed (``go1.23.4-fips``, ``X:boringcrypto``)
lies between two rows of its series     both, assumed
is of a series with rows, else          the nearest row of the series, assumed (``go1.27rc1``: of
                                        go1.27.0, since structs rest from the betas on; a patch
                                        release later than the last row: of that row)
snapshot before a series' first row     that row and the last one of the series before, assumed
is of a series without rows (1.20)      the nearest row on each side, assumed
is of a series after all rows           the last row, assumed, without what no check can confirm
is older than all rows                  none
======================================  =========================================================

Nothing is read by assumed offsets before they were checked in a process that runs
(:mod:`tracer.targets.self_check`).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from tracer.targets.buildinfo import BuildInfo

__all__ = [
    "ASSUMED",
    "CONFIRMED",
    "Choice",
    "Version",
    "offsets_of_build",
    "required",
    "shipped_offsets",
    "version_of",
]

ASSUMED: Final = "assumed from "
"""How a text begins that names the rows that stand in for a version."""

CONFIRMED: Final = (
    *("g_m", "g_goid", "g_status", "m_procid", "m_curg", "m_p"),
    *("p_id", "p_status", "p_m", "sched_lock"),
)
"""Fields whose offset a check of a running process confirms, and does not only bound."""

_PSYSCALL: Final = "psyscall"
_DEVEL, _BETA, _RC, _RELEASE = range(4)
_SHIPPED: Final = Path(__file__).with_name("go_offsets.json")
_VERSION: Final = re.compile(
    r"go1\.(?P<minor>\d{1,4})(?!\d)(?:\.(?P<patch>\d{1,4})(?!\d))?"
    r"(?:(?P<stage>beta|rc)(?P<number>\d{1,4}))?(?P<rest>.*)"
)


class Version(NamedTuple):
    """A Go version, by age.

    Args:
        minor: 27 of ``go1.27.3``.
        patch: 3 of it.
        stage: snapshot of the development, beta, release candidate, release.
        number: of the beta or the candidate.
    """

    minor: int
    patch: int
    stage: int = _RELEASE
    number: int = 0

    @property
    def is_snapshot(self) -> bool:
        """Whether it may be like the series before, or like its own."""
        return self.stage == _DEVEL


@dataclass(frozen=True)
class Choice:
    """What a table tells of a version.

    Args:
        offsets: by field of :class:`~tracer.targets.layout.RuntimeLayout`.
        rows: the versions whose rows they are from; none where the table has nothing to say.
        exact: whether that is the version's own row.
        differ: fields in which the rows differ, and which are left out.
        unconfirmed: fields that are left out because nothing would confirm them.
    """

    offsets: Mapping[str, int] = field(default_factory=dict)
    rows: tuple[str, ...] = ()
    exact: bool = False
    differ: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """``go1.27.3`` or ``assumed from go1.27.0 and go1.27.3``."""
        return ("" if self.exact else ASSUMED) + " and ".join(self.rows)


@functools.cache
def shipped_offsets(goarch: str = "amd64") -> dict[str, dict[str, int]]:
    """The shipped table of an architecture: offsets by version (``go1.27.3``).

    Args:
        goarch: :attr:`tracer.arch.Architecture.goarch`.
    """
    rows: dict[str, dict[str, int]] = json.loads(_SHIPPED.read_text("utf-8"))[goarch]
    return rows


def required(model: str | None) -> tuple[str, ...]:
    """Fields without which it cannot be told whether a thread holds a P, nor be checked.

    Args:
        model: a word of :data:`~tracer.targets.layout.MODELS`; None for not known. Where a P in
            a call is ``_Psyscall``, whose it is is told by two counters.
    """
    common = ("g_m", "g_goid", "g_status", "m_procid", "m_curg", "p_id", "p_status", "p_m")
    if model is None:
        return common
    if model == _PSYSCALL:
        return (*common, "m_p", "m_oldp", "p_syscalltick", "m_syscalltick")
    return (*common, "m_p")


def version_of(text: str) -> tuple[Version, bool] | None:
    """The age of a version, and whether its text is that of a Go release and nothing more.

    Args:
        text: the version word, such as ``go1.27rc1``, ``go1.23.4-fips`` or ``go1.28-devel_1a2b``.

    Returns:
        None for what is no version of Go 1.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    minor, rest = int(match["minor"]), match["rest"]
    if match["stage"]:
        stage = _RC if match["stage"] == "rc" else _BETA
        version = Version(minor, int(match["patch"] or 0), stage, int(match["number"]))
    elif match["patch"] is None and rest.startswith("-"):
        # cmd/dist names a snapshot so: go1.28-devel_1a2b, to Go 1.20 "devel go1.20-1a2b DATE".
        version = Version(minor, 0, _DEVEL)
    else:
        version = Version(minor, int(match["patch"] or 0))
    return version, not rest


def offsets_of_build(info: BuildInfo, rows: Mapping[str, Mapping[str, int]]) -> Choice:
    """The offsets that a table tells of a build, by the rules at the head of this file.

    Args:
        info: what the linker wrote of it.
        rows: the table.
    """
    found = version_of(info.version)
    if found is None:
        return Choice()
    wanted, plain = found
    ages = {name: told[0] for name in rows if (told := version_of(name))}
    table = sorted((age, name) for name, age in ages.items())
    for age, name in table:
        if age == wanted:
            exact = plain and not info.experiments and not info.vendor
            return Choice(dict(rows[name]), (name,), exact)
    series = [row for row in table if row[0].minor == wanted.minor]
    near = series if series and not wanted.is_snapshot else table
    below = [name for age, name in near if age < wanted]
    above = [name for age, name in near if age > wanted]
    if near is not series and not below:
        return Choice()
    names = (*below[-1:], *above[:1])
    offsets = dict(rows[names[0]].items() & rows[names[-1]].items())
    differ = tuple(member for member in rows[names[0]] if member not in offsets)
    if near is series or above:
        return Choice(offsets, names, differ=differ)
    confirmed = {member: at for member, at in offsets.items() if member in CONFIRMED}
    unconfirmed = tuple(member for member in rows[names[0]] if member not in confirmed)
    return Choice(confirmed, names, unconfirmed=unconfirmed)
