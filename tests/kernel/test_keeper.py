"""Probes stand in one process, in a file that does not change meanwhile; the keeper sees to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tracer.capture import programs as programs_module
from tracer.capture.keeper import FOR_EVENTS, FOR_FILES, FOR_PROBES, Keeper
from tracer.capture.programs import Programs

MAPPED = Path(__file__).parent / "programs" / "mapped.py"
OFFSET = 0x1000
CODE = bytes.fromhex("554889e55dc3909090909090")  # push %rbp; mov %rsp,%rbp; pop %rbp; ret
HANDLER = "reference_transition"
BREAKPOINT = 0xCC


class Mapped:
    """A process that has a file mapped as code, and tells its bytes."""

    def __init__(self, file: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", MAPPED, file, str(OFFSET), str(len(CODE))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.code()  # so that it is there

    def code(self) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return bytes.fromhex(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    programs = Programs(buffer_bytes=1 << 20)
    yield programs
    programs.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "code"
    path.write_bytes(bytes(OFFSET) + CODE + bytes(4096))
    return path


@pytest.fixture
def target(file: Path) -> Iterator[Mapped]:
    process = Mapped(file)
    yield process
    process.end()


@pytest.fixture
def keeper(programs: Programs, target: Mapped) -> Iterator[Keeper]:
    keeper = programs.start_keeper(target.pid)
    yield keeper
    keeper.close()
    programs.keeper = None


def probe(keeper: Keeper, pid: int, file: Path, expected: bytes = CODE) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        keeper.probe(pid, fd, [(HANDLER, OFFSET, expected)])
    finally:
        os.close(fd)


def test_a_probe_is_in_its_process_and_in_no_other(
    file: Path, target: Mapped, keeper: Keeper
) -> None:
    earlier = Mapped(file)
    probe(keeper, target.pid, file)
    later = Mapped(file)
    assert target.code() == bytes([BREAKPOINT]) + CODE[1:]
    assert earlier.code() == later.code() == CODE
    keeper.leave(target.pid)
    assert target.code() == CODE
    earlier.end()
    later.end()


def overwrite(file: Path) -> None:
    file.write_bytes(bytes(len(CODE)) * 1000)


def append(file: Path) -> None:
    with file.open("ab") as more:
        more.write(b"x")


def truncate(file: Path) -> None:
    os.truncate(file, OFFSET + len(CODE))


@pytest.mark.parametrize("change", [append, truncate])
def test_the_probes_are_out_before_a_byte_of_the_file_changes(
    file: Path, target: Mapped, keeper: Keeper, change: Callable[[Path], None]
) -> None:
    probe(keeper, target.pid, file)
    assert target.code()[0] == BREAKPOINT
    change(file)
    assert target.code() == CODE
    # And they do not come back to what it is by now, unless somebody looks at it once more.
    later = Mapped(file)
    assert later.code() == CODE
    later.end()


def test_a_file_that_is_replaced_or_deleted_keeps_its_probes_to_itself(
    file: Path, target: Mapped, keeper: Keeper
) -> None:
    probe(keeper, target.pid, file)
    new = file.with_name("new")
    new.write_bytes(bytes(OFFSET) + CODE[::-1] + bytes(4096))
    new.rename(file)
    later = Mapped(file)
    assert target.code()[0] == BREAKPOINT
    assert later.code() == CODE[::-1]
    later.end()
    file.unlink()
    assert target.code()[0] == BREAKPOINT


def test_a_process_that_ends_leaves_nothing_in_the_file(programs: Programs, file: Path) -> None:
    target = Mapped(file)
    keeper = programs.start_keeper(target.pid)
    probe(keeper, target.pid, file)
    target.end()
    # Waits where it is still held.
    overwrite(file)
    later = Mapped(file)
    assert later.code() == bytes(len(CODE))
    later.end()
    keeper.close()
    programs.keeper = None


def test_another_file_than_was_looked_at_is_not_probed(
    file: Path, target: Mapped, keeper: Keeper
) -> None:
    with pytest.raises(OSError, match="not the one that was looked at"):
        probe(keeper, target.pid, file, CODE[::-1])
    assert target.code() == CODE


def test_a_file_that_somebody_may_write_is_not_probed(
    file: Path, target: Mapped, keeper: Keeper
) -> None:
    with file.open("r+b"), pytest.raises(OSError, match="cannot be held still"):
        probe(keeper, target.pid, file)
    assert target.code() == CODE
    probe(keeper, target.pid, file)
    assert target.code()[0] == BREAKPOINT


def mapping(keeper: Keeper, pid: int, file: Path) -> tuple[int, int]:
    """Where a target has a file mapped, as the keeper lets see."""
    with os.fdopen(keeper.open(pid, "maps")) as maps:
        (line,) = [line for line in maps if line.rstrip().endswith(str(file))]
    begin, end = (int(address, 16) for address in line.split()[0].split("-"))
    return begin, end


def ask_all(keeper: Keeper, target: Mapped, file: Path) -> None:
    """All that a keeper is for."""
    begin, end = mapping(keeper, target.pid, file)
    os.close(keeper.open(target.pid, f"map_files/{begin:x}-{end:x}"))
    word = int.from_bytes(CODE[:8], "little", signed=True)
    assert keeper.words(target.pid, [(begin + OFFSET, ()), (0, ())]) == [[word], []]
    assert keeper.caught(target.pid, [[(0, ())], [(begin + OFFSET, ())]]) == (1, [[word]])
    assert keeper.caught(target.pid, [[(0, ())]]) is None
    assert keeper.threads(target.pid) == [target.pid]
    probe(keeper, target.pid, file)
    assert target.code()[0] == BREAKPOINT
    keeper.leave(target.pid)
    assert target.code() == CODE


def held(pid: int) -> int:
    """The capabilities of a process, effective and permitted."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    effective, permitted = (
        {int(line.split()[1], 16) for line in lines if line.startswith(name)}
        for name in ("CapEff:", "CapPrm:")
    )
    assert effective == permitted
    (bits,) = effective
    return bits


@pytest.mark.parametrize("links", [True, False])
def test_a_keeper_has_what_it_needs(
    programs: Programs, file: Path, target: Mapped, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        # As a kernel before 6.6 has them.
        own = Programs(1 << 20)
        monkeypatch.setattr(type(own.loaded), "uprobe_links", False)
    file.chmod(0o600)
    used = programs if links else own
    keeper = used.start_keeper(target.pid)
    ask_all(keeper, target, file)
    assert held(keeper.pid) == FOR_FILES | FOR_PROBES | (0 if links else FOR_EVENTS)
    keeper.close()
    used.keeper = None
    if not links:
        own.close()


@pytest.mark.parametrize(
    "capability",
    [1 << bit for bit in range(41) if (FOR_FILES | FOR_PROBES) >> bit & 1],
)
def test_a_keeper_has_nothing_that_it_does_not_need(
    programs: Programs,
    file: Path,
    target: Mapped,
    monkeypatch: pytest.MonkeyPatch,
    capability: int,
) -> None:
    for name in ("FOR_FILES", "FOR_PROBES"):
        bits = getattr(programs_module, name) & ~capability
        monkeypatch.setattr(programs_module, name, bits)
    file.chmod(0o600)
    keeper = programs.start_keeper(target.pid)
    with pytest.raises(OSError, match=r"permitted|denied|held still"):
        ask_all(keeper, target, file)
    keeper.close()
    programs.keeper = None


def test_a_keeper_without_probes_has_three_capabilities(
    programs: Programs, file: Path, target: Mapped
) -> None:
    file.chmod(0o600)
    keeper = programs.start_keeper(target.pid, ())
    begin, end = mapping(keeper, target.pid, file)
    os.close(keeper.open(target.pid, f"map_files/{begin:x}-{end:x}"))
    keeper.words(target.pid, [(begin, ())])
    assert held(keeper.pid) == FOR_FILES
    with pytest.raises(OSError, match="no such thing"):
        probe(keeper, target.pid, file)
    keeper.close()
    programs.keeper = None


def test_it_answers_of_targets_only(file: Path, target: Mapped, keeper: Keeper) -> None:
    os.close(keeper.open(target.pid, "exe"))
    stranger = Mapped(file)
    for name in ("exe", "maps"):
        with pytest.raises(OSError, match="not a target"):
            keeper.open(stranger.pid, name)
    begin, _ = mapping(keeper, target.pid, file)
    with pytest.raises(OSError, match="not a target"):
        keeper.words(stranger.pid, [(begin, ())])
    with pytest.raises(OSError, match="not a target"):
        keeper.caught(stranger.pid, [[(begin, ())]])
    with pytest.raises(OSError, match="not a target"):
        keeper.threads(stranger.pid)
    with pytest.raises(OSError, match="not a target"):
        probe(keeper, stranger.pid, file)
    for name in ("mem", "root/etc/shadow", "../1/exe", "environ", "exe\n"):
        with pytest.raises(OSError, match="not a file that a capture reads"):
            keeper.open(target.pid, name)
    none: list[Any] = [[(begin, (0,) * 4)], [(begin, ())] * 1025, [(0.5, ())], [None], [("1", ())]]
    for chains in none:
        with pytest.raises(OSError, match="not addresses of a process"):
            keeper.words(target.pid, chains)
    assert stranger.code() == CODE
    stranger.end()


def test_a_keeper_opens_the_program_of_any_process_if_it_was_asked_to_at_its_start(
    programs: Programs, file: Path, target: Mapped
) -> None:
    other = Mapped(file)
    with pytest.raises(OSError, match="not a target"):
        opened(programs, target, other.pid, "exe")
    status = opened(programs, target, other.pid, "exe", any_program=True)
    assert os.path.samestat(status, Path(sys.executable).stat())
    with pytest.raises(OSError, match="not a target"):
        opened(programs, target, other.pid, "maps", any_program=True)
    other.end()


def opened(
    programs: Programs, target: Mapped, pid: int, name: str, any_program: bool = False
) -> os.stat_result:
    keeper = programs.start_keeper(target.pid, (), any_program)
    try:
        fd = keeper.open(pid, name)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)
    finally:
        keeper.close()
        programs.keeper = None
