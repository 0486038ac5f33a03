"""Container and pod of a process, from its cgroup to every row, label and metric."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.formats.profile_proto import Profile
from analysis.loaded import load
from tests.forced import KERNEL, lacking
from tests.go import toolchains
from tests.kernel.started import PRETAKE, Started
from tracer.capture.options import Progress
from tracer.capture.record import record
from tracer.trace.reader import Trace

POD = "3f2b8c1e-9d4a-4c6b-8e7f-0a1b2c3d4e5f"
CONTAINER = "0123456789abcdef" * 4
WHERE = {"container": CONTAINER, "pod": POD}


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup as the kubelet and containerd name it; what ran in it has ended in the end."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [Path(where) for _, where, kind, *_ in mounts if kind == "cgroup2"]
    if not roots:
        lacking("no cgroup2 is mounted here", KERNEL)
    pod = roots[0] / f"kubepods-pod{POD.replace('-', '_')}.slice"
    inside = pod / f"cri-containerd-{CONTAINER}.scope"
    inside.mkdir(parents=True)
    yield inside
    for folder in (inside, pod):
        folder.rmdir()


def test_a_process_is_where_its_cgroup_says(group: Path, tmp_path: Path) -> None:
    # As a container's own first process: it is there before it becomes the program.
    script = f"/bin/true; echo $$ > {group}/cgroup.procs && exec cat {tmp_path}/end"
    os.mkfifo(tmp_path / "end")
    seen: list[int] = []

    def enough(_: Progress) -> None:
        pids = (group / "cgroup.procs").read_text().split()
        seen.extend(int(pid) for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "cat\n")
        # The records that were there at the first time have been read by the second.
        if len(seen) == 2:
            (tmp_path / "end").write_text("")

    path = record(["sh", "-c", script], output=tmp_path / "t.pretake", progress=enough)
    reach = Trace(path).frame("reach").set_index("comm")[["cgroup", "container", "pod"]]
    assert reach.loc["cat"].to_dict() == {"cgroup": f"/{group.parent.name}/{group.name}", **WHERE}
    # It ended before the shell went there.
    assert reach.loc["true", "pod"] != POD


def test_they_are_on_every_row_label_and_metric(group: Path, tmp_path: Path) -> None:
    binary = toolchains.build("blockread")
    script = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    with Started(["sh", "-c", script, "sh", binary, "1000000"]) as process:
        while Path(f"/proc/{process.pid}/exe").readlink() != binary:
            assert process.poll() is None

        def enough(progress: Progress) -> None:
            if progress.events > 2_000:
                process.kill()

        path = record(pid=process.pid, output=tmp_path / "t.pretake", progress=enough)
    trace = load(path)
    (told,) = trace.budget()["processes"]
    assert (told["container"], told["pod"]) == (CONTAINER, POD)
    episodes = trace.episodes()
    assert len(episodes)
    assert set(episodes["pod"]) == {POD}
    assert set(episodes["container"]) == {CONTAINER}

    def printed(*command: object) -> str:
        return subprocess.run(
            [*PRETAKE, *map(str, command)], check=True, capture_output=True, text=True
        ).stdout

    sentence = " ".join(printed("summary", path).split())
    assert f"blockread (pid {process.pid}, pod {POD})" in sentence
    row = json.loads(printed("episodes", path, "--json").splitlines()[0])
    assert {name: row[name] for name in WHERE} == WHERE
    printed("export", path, "--to", "prometheus", "-o", tmp_path / "metrics")
    metrics = (tmp_path / "metrics").read_text().splitlines()
    rows = [line for line in metrics if line.startswith("pretake_")]
    assert rows
    where = f'container="{CONTAINER}"', f'pod="{POD}"'
    assert [line for line in rows if not all(label in line for label in where)] == []
    profile = tmp_path / "p.pb.gz"
    printed("export", path, "--pprof", profile)
    for labels in labels_of(profile):
        assert {name: labels.get(name) for name in WHERE} == WHERE
    (site, *_) = json.loads(printed("fleet", path, "--json"))["sites"]
    assert site["pods"] == 1


def labels_of(path: Path) -> Iterator[dict[str, str]]:
    profile: Any = Profile.FromString(gzip.decompress(path.read_bytes()))
    words = profile.string_table
    assert profile.sample
    for sample in profile.sample:
        yield {words[label.key]: words[label.str] for label in sample.label if label.str}
