"""What the documentation mentions is there: links, make targets, commands with options, files."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import click
import nbformat
import pytest

from pretake.cli import SUBCOMMANDS, group

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/*.ipynb", "reference_runtime/*.md")
    for path in ROOT.glob(pattern)
)
TOP_FOLDERS = (
    "analysis",
    "bench",
    "docs",
    "pretake",
    "reference_runtime",
    "tests",
    "tools",
    "tracer",
)

_QUOTED = re.compile(r"'[^'\n]*'")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(rf"(?:{'|'.join(TOP_FOLDERS)})/[\w./*-]*[\w*/]")
# The end of what belongs to a command: a pipe, another command, or the command that it captures.
_END = re.compile(r"\s(?:--|[|;&#])(?:\s|$)")
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*|-[a-z])(?![\w-])")


def _text(page: str) -> str:
    """The page as markdown; of a notebook, its cells of text."""
    path = ROOT / page
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def _code(text: str) -> Iterator[str]:
    """Each line of a code block, and each code span of the prose between them."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()
        else:
            yield from _CODE.findall(line)


def _anchors(text: str) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}


def broken_links(text: str, folder: Path) -> list[str]:
    """Relative links that lead nowhere from ``folder``."""
    broken = []
    for link in _LINK.findall(text):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = folder / name if name else None
        if target is not None and not target.exists():
            broken.append(link)
        elif anchor:
            there = text if target is None else target.read_text()
            if anchor not in _anchors(there):
                broken.append(link)
    return broken


def unknown_targets(text: str, targets: set[str]) -> list[str]:
    """Targets of ``make`` that the Makefile has not."""
    asked = [m for code in _code(text) for m in re.findall(r"(?:^|sudo )make ([a-z][\w-]*)", code)]
    return [target for target in asked if target not in targets]


@functools.cache
def _command(name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


def unknown_commands(text: str) -> list[str]:
    """Subcommands and options of ``pretake`` that it has not."""
    unknown = []
    # A command in quotes is another one's argument, with options of its own.
    pieces = [
        piece
        for code in _code(text)
        for piece in (_QUOTED.sub("''", code), *_QUOTED.findall(code))
    ]
    for code in pieces:
        for asked in re.findall(r"(?:^|[\s/'])pretake ([a-z]+[^']*)", code):
            own = _END.split(f"{asked} ")[0]
            name, *_ = own.split()
            if name not in SUBCOMMANDS:
                unknown.append(f"pretake {name}")
                continue
            has = {opt for parameter in _command(name).params for opt in parameter.opts}
            has |= {opt for parameter in _command(name).params for opt in parameter.secondary_opts}
            has |= {"--help", "-h"}
            unknown += [f"pretake {name} {o}" for o in _OPTION.findall(own) if o not in has]
    return unknown


def missing_files(text: str, root: Path) -> list[str]:
    """Files and folders of the project that code spans mention and that are not there."""
    missing = []
    for code in _code(text):
        match = _PATH.fullmatch(code)
        made = code.startswith("bench/results/")
        if match and not made and not any(root.glob(match[0].rstrip("/"))):
            missing.append(match[0])
    return missing


@pytest.fixture(scope="module")
def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_whatever_a_page_mentions_is_there(page: str, targets: set[str]) -> None:
    text = _text(page)
    assert broken_links(text, (ROOT / page).parent) == []
    assert unknown_targets(text, targets) == []
    if page == "CHANGELOG.md":
        return  # It tells of files and commands as they were.
    assert unknown_commands(text) == []
    assert missing_files(text, ROOT) == []


def test_readme_has_a_row_for_each_command() -> None:
    rows = [line for line in _text("README.md").splitlines() if line.startswith("| `pretake ")]
    named = [name for row in rows for name in _CODE.findall(row.split(" | ")[0])]
    assert sorted(name.removeprefix("pretake ") for name in named) == sorted(SUBCOMMANDS)


def test_faults_are_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A head, and more\n")
    good = (
        "[a](there.md) [b](there.md#a-head-and-more) [c](https://example.org/x) [d](#own)\n# Own\n"
    )
    assert broken_links(good, tmp_path) == []
    assert broken_links("[a](gone.md) [b](there.md#no-head)", tmp_path) == [
        "gone.md",
        "there.md#no-head",
    ]
    assert unknown_targets("`make test` or\n\n    make tset   # all\n", {"test"}) == ["tset"]
    assert unknown_commands("`pretake record -o a --pid 4 -- ./server --port 80`") == []
    assert unknown_commands("    sudo .venv/bin/pretake recrod --pid 4\n") == ["pretake recrod"]
    assert unknown_commands("`pretake summary t --jsn | jq --arg x`") == ["pretake summary --jsn"]
    assert missing_files("`analysis/gone.py`, `tracer/bpf/*.bpf.c`", ROOT) == ["analysis/gone.py"]
