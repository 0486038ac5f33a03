"""A Go program is looked at twice: at once, and again with its debug information."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import pytest

from tests.go import toolchains
from tracer.targets import dwarf, go, go_offsets
from tracer.targets.buildinfo import BuildInfo
from tracer.targets.elf import Elf

pytestmark = pytest.mark.go

VERSIONS = ("1.19.8", "1.24.11", "1.27.3")


def looks(path: Path) -> tuple[go.GoBinary, go.GoBinary]:
    with Elf(path) as elf:
        fast, deep = go.look(elf, deep=False), go.look(elf, deep=True)
    assert fast is not None
    assert deep is not None
    return fast, deep


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("linkage", ["static", "stripped"])
def test_both_steps_say_the_same(version: str, linkage: str) -> None:
    fast, deep = looks(toolchains.build("blockread", version, linkage))
    assert fast.layout == deep.layout
    assert fast.probes == deep.probes
    assert fast.missing == deep.missing == ()
    assert fast.offsets_from == f"go{version}"
    assert deep.offsets_from == ("dwarf" if linkage == "static" else f"go{version}")


def never(*_: object) -> bytes:
    raise AssertionError("debug information was read")


def test_the_first_step_reads_no_debug_information(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Elf, "debug_section", never)
    with Elf(toolchains.build("blockread", "1.27.3", "static")) as elf:
        assert go.look(elf, deep=False) is not None


def told(info: BuildInfo) -> Callable[[Elf], BuildInfo]:
    return lambda _: info


@pytest.mark.parametrize(
    ("info", "offsets_from", "lacks"),
    [
        # The same version, built otherwise: nothing is left out.
        (BuildInfo("go1.27.3", ("staticlockranking",)), "assumed from go1.27.3", None),
        (BuildInfo("go1.27.3", (), "(Red Hat)"), "assumed from go1.27.3", None),
        # Later than all rows: what no check confirms is.
        (BuildInfo("go1.99.0"), "assumed from go1.27.3", "p_timer"),
        # Before all rows: nothing is assumed.
        (BuildInfo("go1.18.1"), None, "block"),
    ],
)
def test_a_build_that_the_table_does_not_know_is_read_at_once(
    monkeypatch: pytest.MonkeyPatch, info: BuildInfo, offsets_from: str | None, lacks: str | None
) -> None:
    monkeypatch.setattr(go, "build_info", told(info))
    fast, deep = looks(toolchains.build("blockread", "1.27.3", "static"))
    assert fast == deep
    assert fast.offsets_from == "dwarf"
    assert not fast.assumed
    assert fast.missing == ()
    # And without debug information it is told what the offsets are, or that there are none.
    fast, deep = looks(toolchains.build("blockread", "1.27.3", "stripped"))
    assert fast == deep
    assert fast.offsets_from == offsets_from
    assert fast.assumed == (offsets_from is not None)
    assert (fast.layout.m_procid >= 0) == fast.assumed
    assert any(lacks in missing.what for missing in fast.missing) if lacks else not fast.missing
    assert all(missing.mend for missing in fast.missing)


@pytest.mark.parametrize(
    ("error", "how"),
    [(ValueError("a typedef that leads back to itself"), "damaged"), (MemoryError(), "too large")],
)
def test_debug_information_that_cannot_be_read_costs_what_only_it_tells(
    monkeypatch: pytest.MonkeyPatch, error: Exception, how: str
) -> None:
    def fails(*_: object, **__: object) -> dict[str, dict[str, int]]:
        raise error

    monkeypatch.setattr(go, "struct_offsets", fails)
    _, deep = looks(toolchains.build("blockread", "1.27.3", "static"))
    assert deep.offsets_from == "go1.27.3"
    assert deep.layout.g_m >= 0
    (missing,) = deep.missing
    assert missing.what == "debug information"
    assert how in missing.why


@pytest.mark.parametrize("value", [-4, 6, 1 << 20])
def test_offsets_that_no_struct_has_are_not_believed(
    monkeypatch: pytest.MonkeyPatch, value: int
) -> None:
    honest = dwarf.struct_offsets

    def bent(
        elf: Elf, wanted: Mapping[str, Collection[str]], *, inline: bool
    ) -> dict[str, dict[str, int]]:
        found = honest(elf, wanted, inline=inline)
        found["runtime.m"]["procid"] = value
        return found

    monkeypatch.setattr(go, "struct_offsets", bent)
    _, deep = looks(toolchains.build("blockread", "1.27.3", "static"))
    assert deep.layout.m_procid == go_offsets.shipped_offsets()["go1.27.3"]["m_procid"]
    assert [missing.what for missing in deep.missing] == ["debug information"]


@pytest.mark.parametrize("version", toolchains.VERSIONS)
def test_the_model_of_a_p_in_a_system_call_is_the_versions(version: str) -> None:
    fast, _ = looks(toolchains.build("blockread", version, "static"))
    assert fast.layout.model == ("psyscall" if toolchains.minor(version) <= 25 else "prunning")


def test_rows_that_differ_in_what_is_needed_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = go_offsets.shipped_offsets()
    rows = {name: shipped[name] for name in ("go1.25.5", "go1.27.0")}
    monkeypatch.setattr(go, "shipped_offsets", lambda _: rows)
    fast, deep = looks(toolchains.build("blockread", "1.26.6", "stripped"))
    assert fast == deep
    assert fast.offsets_from is None
    assert fast.layout.g_m == -1
    (missing,) = [m for m in fast.missing if m.what.startswith("block")]
    # m.p is at 200 in one and at 208 in the other.
    assert missing.why.endswith("its nearest, go1.25.5 and go1.27.0, do not tell m_p alike")
    assert "tools.go_offsets" in missing.mend


def test_where_rows_differ_the_code_tells_the_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = go_offsets.shipped_offsets()
    rows = {name: shipped[name] for name in ("go1.19.8", "go1.22.10")}
    monkeypatch.setattr(go, "shipped_offsets", lambda _: rows)
    fast, _ = looks(toolchains.build("blockread", "1.21.13", "stripped"))
    assert fast.offsets_from == "assumed from go1.19.8 and go1.22.10"
    # 668 in the one, 952 in the other.
    assert fast.layout.m_syscalltick == 664
    assert fast.layout.sched_runqsize == fast.layout.p_timer == -1
    (missing,) = fast.missing
    lacks = "what p_timer, p_timer_modified, sched_runqsize, sched_gcwaiting tell"
    assert missing.what == lacks
