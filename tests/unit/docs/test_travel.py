"""The page that follows an event through the code names functions that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "how-an-event-travels.md"
_ROW = re.compile(r"^\| .* \| `([\w./]+)` \| `(\w+)` \|$", re.MULTILINE)
_IN_PROSE = re.compile(r"`([\w./]+\.(?:py|c))`: `(\w+)`|`(\w+)` in\s+`([\w./]+\.(?:py|c))`")


def named(text: str) -> list[tuple[str, str]]:
    """Each file with the function (or class) that the text names there."""
    prose = [(a or d, b or c) for a, b, c, d in _IN_PROSE.findall(text)]
    return [*_ROW.findall(text), *prose]


def defines(source: str, name: str) -> bool:
    """Whether a Python or C source defines a function or class of this name."""
    python = re.search(rf"^\s*(?:def|class) {name}\b", source, re.MULTILINE)
    c = re.search(rf"^(?:\w[\w* ]*)?\b{name}\([^;]*$", source, re.MULTILINE)
    return bool(python or c)


@pytest.mark.parametrize(("file", "name"), named(PAGE.read_text()))
def test_each_step_is_in_the_code(file: str, name: str) -> None:
    assert defines((ROOT / file).read_text(), name), f"{file} has no {name}"


def test_the_page_follows_the_event_from_end_to_end() -> None:
    folders = {file.rsplit("/", 1)[0] for file, _ in named(PAGE.read_text())}
    assert {"tracer/bpf", "tracer/capture", "tracer/trace", "analysis/ptime"} <= folders
    assert "pretake/commands" in folders
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    heads = PAGE.read_text().count("| what happens |")
    assert len(_ROW.findall(PAGE.read_text())) == len(rows) - heads, "a row that is not checked"


def test_a_name_that_is_gone_is_found() -> None:
    source = "int on_read(struct args *ctx)\n{\n\treturn on_write(ctx);\n}\n"
    source += "class Ring:\n    def peek(self):\n        return seek(self)\n"
    assert defines(source, "on_read")
    assert defines(source, "peek")
    assert defines(source, "Ring")
    assert not defines(source, "on_write"), "a call is no definition"
    assert not defines(source, "seek"), "a call is no definition"
    assert not defines(source, "on_rea")
