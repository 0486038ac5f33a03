"""Functions, files and lines of addresses, against Go's own tool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from analysis.answers.places import places
from tests.go import toolchains
from tests.go.capture import capture
from tracer.targets.elf import Elf
from tracer.targets.pclntab import Pclntab

VERSIONS = ("1.19.8", "1.25.5", "1.27.3")
NR_READ = 0


def told_by_go(version: str, binary: Path, addresses: list[int]) -> list[tuple[str, str]]:
    """Function and FILE:LINE of each address, from ``go tool addr2line``."""
    root = toolchains.goroot(version)
    done = subprocess.run(
        [root / "bin" / "go", "tool", "addr2line", binary],
        input="".join(f"{address:#x}\n" for address in addresses),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=toolchains.environment(version),
    )
    lines = done.stdout.splitlines()
    return list(zip(lines[0::2], lines[1::2], strict=True))


@pytest.mark.parametrize("version", VERSIONS)
def test_functions_and_lines_are_those_that_go_tells(version: str) -> None:
    with_symbols = toolchains.build("blockread", version, "static")
    # Strip moves nothing; and in what it leaves, a line of inlined code is the inlined one's, as
    # Go's tool has it.
    with Elf(toolchains.build("blockread", version, "stripped")) as elf:
        table = Pclntab(elf)
        random = np.random.default_rng(23)
        names = ("main.main", "runtime.retake", "syscall.Syscall", "fmt.Fprintf", "os.Open")
        functions = [f for name in names if (f := table.function(name))]
        assert len(functions) >= 4
        addresses = [
            int(at)
            for f in functions
            for at in random.integers(f.begin, f.end, 60, endpoint=False)
        ]
        ours = [
            (name, "{}:{}".format(*(table.source_at(address) or ("?", 0))))
            for name, address in zip(table.names_at(np.array(addresses)), addresses, strict=True)
        ]
    theirs = told_by_go(version, with_symbols, addresses)
    # The two were built in different folders; padding behind a function has no line.
    pairs = [
        ((ours_in, Path(ours_at).name), (theirs_in, Path(theirs_at).name))
        for (ours_in, ours_at), (theirs_in, theirs_at) in zip(ours, theirs, strict=True)
        if not theirs_at.startswith(("?", ":"))
    ]
    assert len(pairs) > 200
    assert [a for a, _ in pairs] == [b for _, b in pairs]


def test_a_call_site_has_its_own_line_where_all_below_it_is_inlined(tmp_path: Path) -> None:
    trace = capture(tmp_path / "t", "blockread", ["60"])
    blocks, stacks = trace.frame("block"), places(trace)
    # Elsewhere a thread may wait for a page, or for a lock of the runtime that another M has.
    blocks = blocks[blocks["nr"] == NR_READ]
    assert len(blocks) > 10
    assert not blocks["stack_id"].isna().any()
    assert set(blocks["stack_id"]) <= set(stacks["stack_id"])
    (site,) = stacks[stacks["stack_id"].isin(blocks["stack_id"])].to_dict("records")
    assert site["site"] == "pretake.test/timer.Timer.Block"
    source = Path(__file__).parent / "timer" / "timer.go"
    assert "syscall.Read(" in source.read_text().splitlines()[site["line"] - 1]
    assert site["stack"].startswith(
        "runtime.goexit;runtime.main;main.main;pretake.test/timer.Timer.Block;"
    )
