"""What a tracer relies on: the words' numbers, and where a compiled build keeps its fields."""

from __future__ import annotations

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

import reference_runtime
from reference_runtime import transitions
from tracer.trace.words import RUNTIME_KINDS, RUNTIME_REASONS

FIELDS = {
    "M": {"id", "tid", "p", "nextp", "curg", "sched"},
    "G": {"goid", "status"},
    "P": {"id", "status", "runqhead", "runqtail"},
    "Sched": {"npidle", "nmspinning", "runqsize"},
}


def test_transitions_are_numbered_by_the_words_of_a_trace() -> None:
    for word in ("retake", "handoff", "startm", "acquirep", "run", "pidle", "exit_slow", "stopm"):
        assert RUNTIME_KINDS[getattr(transitions, word.upper())] == word
    assert RUNTIME_REASONS[transitions.BY_SYSMON] == "sysmon"
    assert RUNTIME_REASONS[transitions.BY_SYSCALL_BLOCK] == "syscall_block"


@pytest.fixture(scope="module")
def library() -> Path:
    if not reference_runtime.COMPILED:
        pytest.skip("the scheduler is interpreted (build it with setup.py build_ext --inplace)")
    root = Path(reference_runtime.__file__).parent.parent
    return next(root.glob("reference_runtime__mypyc.*.so"))


def test_the_probed_functions_are_symbols(library: Path) -> None:
    with library.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        for name in ("mstart", "transition"):
            (symbol,) = table.get_symbol_by_name(f"CPyDef_transitions___{name}")
            assert symbol["st_info"]["bind"] == "STB_GLOBAL"
            assert symbol["st_size"] > 0


def test_the_fields_that_are_read_have_offsets_in_dwarf(library: Path) -> None:
    found: dict[str, set[str]] = {}
    wanted = {f"reference_runtime___gmp___{name}Object": name for name in FIELDS}
    with library.open("rb") as file:
        for unit in ELFFile(file).get_dwarf_info().iter_CUs():
            for die in unit.get_top_DIE().iter_children():
                name = die.attributes.get("DW_AT_name")
                if die.tag != "DW_TAG_typedef" or name is None:
                    continue
                if (owner := wanted.get(name.value.decode())) is None:
                    continue
                struct = die.get_DIE_from_attribute("DW_AT_type")
                found[owner] = {
                    member.attributes["DW_AT_name"].value.decode()
                    for member in struct.iter_children()
                    if "DW_AT_data_member_location" in member.attributes
                }
    for owner, fields in FIELDS.items():
        assert {f"_{field}" for field in fields} <= found[owner]
