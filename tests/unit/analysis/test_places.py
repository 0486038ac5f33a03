"""Stacks of a scene made by hand: call sites, folded stacks, a flame graph."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from analysis.answers.flame import flame_svg
from analysis.answers.places import PLACES, places
from analysis.answers.sites import sites
from analysis.formats.export import folded, folded_lines
from analysis.ptime.episodes import episodes
from tests.unit.analysis.scene import Scene

FUNCTIONS = {
    # pc: function, file, line
    1: ("syscall.Syscall", "syscall_linux.go", 87),
    2: ("os.(*File).Read", "file.go", 120),
    3: ("main.load", "/src/main.go", 30),
    4: ("main.main", "/src/main.go", 9),
    5: (None, None, None),
    6: ("main.handle", "/src/main.go", 50),
    7: ("runtime.notetsleep", "lock_futex.go", 7),
}
STACKS = {
    # stack_id: pcs, innermost first
    40: (1, 2, 3, 4),
    41: (5, 6, 4),
    42: (5, 7),
    43: (5,),
}


def scene() -> Scene:
    """Calls of 10, 20, 30, 40 and 50 µs: two of stack 40, one each of 41 and 42, one of none."""
    made = Scene()
    made.task(11, 11, "server")
    for call, stack in enumerate((40, 40, 41, 42, None)):
        at = call * 1_000
        made.block(at + 100, 11, at + 90, 0, stack_id=stack)
        made.exit(at + 100 + 10 * (call + 1), 11, at + 90)
    for stack, pcs in STACKS.items():
        for depth, pc in enumerate(pcs):
            made.rows["stack"].append({"pid": 11, "stack_id": stack, "depth": depth, "pc": pc})
    for pc, (function, file, line) in FUNCTIONS.items():
        made.rows["address"].append(
            {"pid": 11, "pc": pc, "function": function, "file": file, "line": line}
        )
    return made


def test_the_call_site_is_behind_the_plumbing(tmp_path: Path) -> None:
    table = places(scene().write(tmp_path)).set_index("stack_id")
    assert (table.index.name, *table.columns) == PLACES.names
    assert table.loc[40, "site"] == "main.load"
    assert (table.loc[40, "file"], table.loc[40, "line"]) == ("/src/main.go", 30)
    assert table.loc[40, "stack"] == "main.main;main.load;os.(*File).Read;syscall.Syscall"
    # What has no name is passed over, and plumbing stands where there is nothing else.
    assert table.loc[41, "site"] == "main.handle"
    assert table.loc[42, "site"] == "runtime.notetsleep"
    assert table["runtime_wait"].to_dict() == {40: False, 41: False, 42: True, 43: False}
    assert table["site"].isna().to_dict() == {40: False, 41: False, 42: False, 43: True}


def test_a_trace_without_stacks_has_no_places(tmp_path: Path) -> None:
    table = places(Scene().write(tmp_path))
    assert tuple(table.columns) == PLACES.names
    assert len(table) == 0


def test_sites_are_call_sites(tmp_path: Path) -> None:
    trace = scene().write(tmp_path)
    table = sites(episodes(trace), places(trace))
    # The most hold first: 50 µs of no known site, 40, 30, and 10 + 20 of one site.
    assert table["site"].astype(object).where(table["site"].notna(), None).tolist() == [
        *(None, "runtime.notetsleep"),
        *("main.handle", "main.load"),
    ]
    assert table["hold_sum_ns"].tolist() == [50_000, 40_000, 30_000, 30_000]
    assert table["episodes"].tolist() == [1, 1, 1, 2]
    assert table["line"].tolist()[1:] == [7, 50, 30]
    assert table["runtime_wait"].tolist() == [False, True, False, False]


def test_folded_stacks_have_the_functions(tmp_path: Path) -> None:
    trace = scene().write(tmp_path)
    lines = [line.rstrip() for line in folded_lines(episodes(trace), "hold_ns", places(trace))]
    load = "server;main.main;main.load;os.(*File).Read;syscall.Syscall;read;kept;unknown 30"
    assert load in lines
    assert "server;read;kept;unknown 50" in lines


def test_a_flame_graph_is_as_wide_as_its_time(tmp_path: Path) -> None:
    trace = scene().write(tmp_path)
    text = flame_svg(folded(episodes(trace), "hold_ns", places(trace)), "<held>")
    root = ElementTree.fromstring(text)
    name = "{http://www.w3.org/2000/svg}"
    widths = {}
    for box in root.iter(f"{name}g"):
        title, rectangle = box.find(f"{name}title"), box.find(f"{name}rect")
        assert title is not None
        assert rectangle is not None
        widths[title.text or ""] = float(rectangle.attrib["width"])
    # 30 of 150 µs.
    assert widths["main.load: 30 µs (20.0%)"] == 240
    assert widths["all: 150 µs (100.0%)"] == 1200
    assert "&lt;held&gt;" in text
