"""Byte code that a wheel brings: which is used, and which never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.errors import PretakeError
from tracer.kernel import fitting, shipped
from tracer.kernel.fitting import FORCE, source
from tracer.kernel.object import MapShape, Object
from tracer.kernel.shipped import Shipped, variants, write

FLAG = Object((), {"flag": b"\x95" + bytes(7)})
RECORD = Object((MapShape("m", 1, 4, 8, 10, 0, '"int"'),), {"one": bytes(8), "two": bytes(16)})


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Byte code of the sources as they are, on a machine where nothing is forced."""
    path = tmp_path / "x86_64.zip"
    write(path, "bcc 1.2", FLAG, [({"INFER": 1}, RECORD)])
    monkeypatch.setattr(shipped, "archive_path", lambda: path)
    monkeypatch.delenv(FORCE, raising=False)
    return path


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PretakeError("bcc is not installed", "apt-get install it")

    monkeypatch.setattr(fitting, "load_bcc", refuse)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "load_bcc", lambda: None)
    monkeypatch.setattr(fitting, "compiler_version", lambda: "bcc 3.4")
    monkeypatch.setattr(fitting, "find_headers", lambda: (Path("/headers"),))


def change_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "sources_digest", lambda: "another")


def test_what_is_written_is_read(archive: Path) -> None:
    there = Shipped()
    assert there.made_by == "bcc 1.2"
    assert there.programs({"INFER": 1}) == RECORD
    assert there.return_flag() == FLAG
    again = archive.with_name("again")
    write(again, "bcc 1.2", FLAG, [({"INFER": 1}, RECORD)])
    assert again.read_bytes() == archive.read_bytes()


def test_each_set_of_programs_has_a_place_of_its_own(archive: Path) -> None:
    sets = [(defines, Object((), {str(i): b""})) for i, defines in enumerate(variants())]
    write(archive, "bcc 1.2", FLAG, sets)
    assert [Shipped().programs(defines) for defines, _ in sets] == [made for _, made in sets]


@pytest.mark.usefixtures("archive", "no_compiler")
def test_without_a_compiler_the_byte_code_is_used() -> None:
    found = source({"INFER": 1})
    assert found.shipped
    assert found.told == "the byte code of this installation, made by bcc 1.2"
    assert found.programs.programs({"INFER": 1}) == RECORD


@pytest.mark.usefixtures("archive", "compiler")
def test_byte_code_of_these_sources_is_used_beside_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert source({"INFER": 1}).shipped
    monkeypatch.setenv(FORCE, "compiled")
    found = source({"INFER": 1})
    assert not found.shipped
    assert found.told == f"compiled here by bcc 3.4: {FORCE} asks for it"


@pytest.mark.usefixtures("archive", "compiler")
def test_of_other_sources_the_compiler_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    change_the_sources(monkeypatch)
    found = source()
    assert not found.shipped
    assert found.told == (
        "compiled here by bcc 3.4: the byte code in this installation was made of other sources"
    )


@pytest.mark.usefixtures("archive", "no_compiler")
@pytest.mark.parametrize("forced", ["", "shipped"])
def test_of_other_sources_and_without_a_compiler_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, forced: str
) -> None:
    change_the_sources(monkeypatch)
    monkeypatch.setenv(FORCE, forced)
    with pytest.raises(PretakeError, match="made of other sources") as refused:
        source()
    assert "install pretake again" in refused.value.mend


@pytest.mark.usefixtures("no_compiler")
def test_where_there_is_neither_both_are_told_in_one_line(archive: Path) -> None:
    archive.unlink()
    with pytest.raises(PretakeError) as refused:
        source()
    assert "no byte code for" in refused.value.problem
    assert "bcc is not installed" in refused.value.problem
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("archive", "compiler")
def test_a_mode_that_no_capture_asks_for_is_compiled() -> None:
    assert not source({"GO_PS_AT_A_TIME": 1}).shipped


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("fault", ["cut short", "no archive", "a changed byte"])
def test_a_damaged_file_is_refused(archive: Path, fault: str) -> None:
    whole = archive.read_bytes()
    if fault == "cut short":
        archive.write_bytes(whole[: len(whole) // 2])
    elif fault == "no archive":
        archive.write_bytes(b"byte code")
    else:
        # Of the last member's packed text, which lies before the directory of the members.
        at = whole.index(b"PK\x01\x02") - 8
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    with pytest.raises(PretakeError, match="is damaged"):
        source().programs.programs({"INFER": 1})


@pytest.mark.usefixtures("archive")
def test_a_word_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCE, "shiped")
    with pytest.raises(PretakeError, match="'shiped'"):
        source()
