"""Names of addresses in a process that became another program."""

from __future__ import annotations

from pathlib import Path

from analysis.answers.places import places
from analysis.answers.where import Site, functions_of, sites_of
from tests.unit.analysis.scene import US, Scene
from tracer.trace.reader import Trace


def became_another(folder: Path) -> Trace:
    """Process 7 is exec'd anew at 500; address 64 is main.old before that, main.new after it."""
    scene = Scene()
    scene.task(7, 7, at=0)
    scene.task(7, 7, at=500, kind="exec")
    for row, generation in zip(scene.rows["task"], (1, 2), strict=True):
        row["generation"] = generation
    for generation, function in ((1, "main.old"), (2, "main.new")):
        place = {"pid": 7, "generation": generation, "pc": 64}
        scene.rows["stack"].append({"stack_id": generation, "depth": 0, **place})
        scene.rows["address"].append({"function": function, "file": "f.go", "line": 3, **place})
    return scene.write(folder)


def test_a_stack_is_named_by_the_program_it_was_taken_of(tmp_path: Path) -> None:
    assert sites_of(became_another(tmp_path), {1, 2}) == {
        1: Site("main.old", "f.go", 3),
        2: Site("main.new", "f.go", 3),
    }


def test_an_address_is_named_by_the_program_of_that_time(tmp_path: Path) -> None:
    trace = became_another(tmp_path)
    places = {(7, ns, 64) for ns in (0, 499 * US, 500 * US, 900 * US)}
    assert functions_of(trace, places) == {
        (7, 0, 64): "main.old",
        (7, 499 * US, 64): "main.old",
        (7, 500 * US, 64): "main.new",
        (7, 900 * US, 64): "main.new",
    }
    assert functions_of(trace, {(8, 0, 64), (7, 0, 65)}) == {}


def test_a_wait_of_the_runtime_is_told_whoever_is_below_it(tmp_path: Path) -> None:
    """Go's futex under runtime.GC; a program's own; CPython's lock, under the C library."""
    stacks = {
        1: ("runtime.futex", "runtime.forEachP", "runtime.GC", "main.main"),
        2: ("syscall.Syscall6", "main.main"),
        3: (None, "PyThread_acquire_lock_timed", "take_gil"),
        4: (None, "runtime.futex"),
    }
    scene = Scene()
    pcs: dict[str | None, int] = {}
    for stack_id, functions in stacks.items():
        for depth, function in enumerate(functions):
            pc = pcs.setdefault(function, len(pcs))
            place = {"pid": 7, "generation": 1, "pc": pc}
            scene.rows["stack"].append({"stack_id": stack_id, "depth": depth, **place})
    for function, pc in pcs.items():
        if function is not None:
            row = {"pid": 7, "generation": 1, "pc": pc, "function": function}
            scene.rows["address"].append(row)
    scene.task(7, 7)
    trace = scene.write(tmp_path)
    found = sites_of(trace, set(stacks))
    assert {n: (site.function, site.runtime_wait) for n, site in found.items()} == {
        1: ("main.main", True),
        2: ("main.main", False),
        3: ("PyThread_acquire_lock_timed", True),
        4: ("runtime.futex", True),
    }
    # The tables of pandas say the same.
    table = places(trace).set_index("stack_id")
    assert table["runtime_wait"].to_dict() == {n: site.runtime_wait for n, site in found.items()}
    assert table["site"].to_dict() == {n: site.function for n, site in found.items()}
