"""A pprof profile of scenes made by hand: values, labels and places."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from analysis.answers.budget import budget
from analysis.formats.pprof import SAMPLE_TYPES, write_pprof
from analysis.formats.profile_proto import Profile
from tests.unit.analysis.scene import US, Scene
from tests.unit.analysis.test_budget import MONITOR, look, two_ps
from tracer.errors import PretakeError
from tracer.trace.reader import Trace


def blocked(folder: Path) -> Trace:
    """P 0 in a read from 100 to 300, taken at 200; P 1 in a fault from 200 to 250; W is 3."""
    scene = two_ps(400)
    scene.block(100, 11, 90, 0, stack_id=1)
    scene.switch(100, 11, 0)
    scene.block(200, 12, None, 1, why="fault", nr=None, p_use=None, stack_id=2)
    scene.switch(200, 12, 0)
    scene.runtime(200, "retake", MONITOR, 0, reason="sysmon", target_tid=11)
    scene.wakeup(250, 12)
    scene.switch(250, 0, 12)
    look(scene, 400, 3)
    names(scene)
    return scene.write(folder)


def names(scene: Scene) -> None:
    """Stack 1 is main.f, called by main.main, of a program that is known; 2 has no name."""
    scene.rows["task"].append({"ts_ns": 0, "tid": 7, "pid": 7, "comm": "server"})
    for row in scene.rows["task"]:
        row["generation"] = 0
    for stack_id, depth, pc in ((1, 0, 64), (1, 1, 96), (2, 0, -16)):
        place = {"pid": 7, "generation": 0, "pc": pc}
        scene.rows["stack"].append({"stack_id": stack_id, "depth": depth, **place})
    for pc, function, line in ((64, "main.f", 5), (96, "main.main", 9)):
        place = {"pid": 7, "generation": 0, "pc": pc}
        row = {"function": function, "file": "/src/main.go", "line": line}
        scene.rows["address"].append({**row, **place})
    scene.rows["reach"].append(
        {"pid": 7, "generation": 0, "ts_ns": 0, "path": "/bin/server", "build_id": "abcd"}
    )


def read(path: Path) -> Any:  # noqa: ANN401 - a message that protobuf makes
    return Profile.FromString(gzip.decompress(path.read_bytes()))


def samples(profile: Any) -> list[tuple[list[str], dict[str, int], dict[str, str]]]:  # noqa: ANN401
    """Functions (innermost first), values that are not 0, and labels of each sample."""
    words = profile.string_table
    functions = {f.id: words[f.name] for f in profile.function}
    places = {x.id: [functions[line.function_id] for line in x.line] for x in profile.location}
    kinds = [words[kind.type] for kind in profile.sample_type]
    return [
        (
            [name for place in sample.location_id for name in places[place]],
            {kind: v for kind, v in zip(kinds, sample.value, strict=True) if v},
            {words[x.key]: words[x.str] if x.str else str(x.num) for x in sample.label},
        )
        for sample in profile.sample
    ]


def test_holds_faults_and_the_rest(tmp_path: Path) -> None:
    trace = blocked(tmp_path)
    assert write_pprof(trace, tmp_path / "out.pb.gz") == 3
    profile = read(tmp_path / "out.pb.gz")
    found = {
        labels["cause"]: (places, values, labels) for places, values, labels in samples(profile)
    }
    common = {"process": "server", "pid": "7"}
    assert found["syscall"] == (
        ["(read)", "main.f", "main.main"],
        {"holds": 1, "hold": 100 * US, "harm": 100 * US, "lost_p": 100 * US},
        {**common, "cause": "syscall", "syscall": "read", "taker": "sysmon"},
    )
    assert found["fault"] == (
        ["0xfffffffffffffff0"],
        {"holds": 1, "hold": 50 * US, "lost_p": 50 * US, "fault": 50 * US},
        {**common, "cause": "fault", "taker": "kept"},
    )
    # P 0 from 200 to 400: taken, and nobody runs it.
    assert found["transit"] == (
        ["(P in state transit, in no call)"],
        {"lost_p": 200 * US},
        {**common, "cause": "transit"},
    )
    # The sums are those of the budget.
    (process,) = budget(trace)["processes"]
    lost = sum(lost["least"] for lost in process["lost_ns"].values())
    assert sum(values["lost_p"] for _, values, _ in found.values()) == lost == 350 * US


def test_places_have_their_program(tmp_path: Path) -> None:
    write_pprof(blocked(tmp_path), tmp_path / "out.pb.gz")
    profile = read(tmp_path / "out.pb.gz")
    words = profile.string_table
    assert words[0] == ""
    (mapping,) = profile.mapping
    assert (words[mapping.filename], words[mapping.build_id]) == ("/bin/server", "abcd")
    assert (mapping.memory_start, mapping.memory_limit) == (64, (1 << 64) - 15)
    lines = {(words[f.name], words[f.filename]) for f in profile.function}
    assert ("main.f", "/src/main.go") in lines
    at = {location.address: location.line[0].line for location in profile.location}
    assert (at[64], at[96]) == (5, 9)
    assert [(words[t.type], words[t.unit]) for t in profile.sample_type] == [
        (name, unit) for name, unit, _ in SAMPLE_TYPES
    ]
    assert words[profile.default_sample_type] == "lost_p"
    assert profile.duration_nanos == 400 * US


def test_a_trace_without_a_hold_is_an_empty_profile(tmp_path: Path) -> None:
    assert write_pprof(two_ps(400).write(tmp_path), tmp_path / "out.pb.gz") == 0
    assert len(read(tmp_path / "out.pb.gz").sample_type) == len(SAMPLE_TYPES)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(PretakeError, match="cannot write"):
        write_pprof(blocked(tmp_path), tmp_path / "no" / "out.pb.gz")
