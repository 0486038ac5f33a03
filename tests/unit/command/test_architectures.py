"""A run tells the same whatever it was captured on: one on arm64 beside its twin on x86-64.

The twins are the same rows, but for the numbers of their system calls, which have the same names.
So every command that takes a trace has to say the same of both.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import system_calls
from click.testing import CliRunner

from analysis import load
from pretake.cli import group
from tests.unit.analysis.scene import US, Scene
from tests.unit.command.shelf import busy_server

NAMES = ("nanosleep", "futex", "rt_sigreturn", "ppoll")
COMMANDS = (
    *(["summary", "--json"], ["budget", "--json"], ["episodes", "--json"]),
    *(["callsites", "--json"], ["preemptions"], ["factors", "--json"]),
    *(["advise", "--json"], ["check"], ["whatif", "--json", "--retake", "sysmon"]),
)


def number(machine: str, name: str) -> int:
    """By the kernels' tables, as the package has them."""
    found: int = system_calls.syscalls().load_arch_table(machine)[name]
    return found


def server() -> Scene:
    """A busy server on x86-64, whose calls are of several names, one with a handler inside."""
    scene = busy_server(arch="x86_64")
    sleep, futex, sigreturn, poll = (number("x86_64", name) for name in NAMES)
    for call in range(40):
        at = 1_000 * call + 600
        scene.block(at, 11, at - 10, 0, nr=poll, runq=1, global_runq=0, npidle=0, nmspinning=0)
        scene.exit(at + 90, 11, at - 10, nr=poll, blocks=1, blocked_ns=60 * US)
        for nr, after in ((sleep, 100), (futex, 200)):
            row = {"nr": nr, "blocks": 1, "blocked_ns": 70 * US}
            scene.exit(at + after + 80, 19, at + after, **row)
        scene.signal(at + 30, "deliver", 11, interrupted_nr=poll)
    # An outer call that a handler's calls lie in: its rt_sigreturn tells that they may.
    scene.exit(950, 12, 700, nr=poll, blocks=1, blocked_ns=10 * US)
    scene.exit(720, 12, 710, nr=sigreturn, blocks=0, blocked_ns=0)
    return scene


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    scene = server()
    other = copy.deepcopy(scene)
    other.manifest["arch"] = "aarch64"
    names = {number("x86_64", name): name for name in (*NAMES, "read")}
    for rows in other.rows.values():
        for row in rows:
            for column in ("nr", "interrupted_nr"):
                if row.get(column) is not None:
                    row[column] = number("arm64", names[row[column]])
    x86, arm = (tmp_path_factory.mktemp(name) for name in ("x86", "arm"))
    return scene.write(x86).path, other.write(arm).path


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_every_command_says_the_same(words: list[str], twins: tuple[Path, Path]) -> None:
    said = []
    for path in twins:
        name, *options = words
        told = CliRunner().invoke(group, [name, str(path), *options], catch_exceptions=False)
        assert told.exit_code in (0, 1)
        text = told.stdout.replace(str(path), "TRACE").replace("aarch64", "x86_64")
        said.append(re.sub(r'nr": ?\d+', 'nr": 0', text))
    assert said[0]
    assert said[0] == said[1]


def test_its_calls_have_names(twins: tuple[Path, Path]) -> None:
    for path in twins:
        assert set(load(path).episodes()["syscall"]) == {"read", "ppoll"}
        assert load(path).interrupted_calls()["syscall"].tolist() == ["ppoll"]


def test_numbers_of_an_unknown_architecture_have_no_names(tmp_path: Path) -> None:
    scene = busy_server(arch="riscv64")
    assert set(load(scene.write(tmp_path).path).episodes()["syscall"]) == {"nr 0"}
