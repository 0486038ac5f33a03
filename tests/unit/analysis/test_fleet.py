"""Many traces of many hosts: what is summed, which hosts stand apart, and what is no trace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

from analysis.answers.fleet import Part, Site, Sum, fleet, merged, told_of
from analysis.answers.found import find_traces
from analysis.loaded import load
from pretake.commands.fleet import command
from tests.unit.command.shelf import busy_server


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    """Seven traces of three hosts, and four things that are none."""
    folder = tmp_path / "dumps"
    for number in range(7):
        host = f"host{number % 3}"
        (folder / host / "api").mkdir(parents=True, exist_ok=True)
        busy_server(20, host=host).write(folder / host / "api", f"{number}.pretake")
    half = folder / "host1/api/half.pretake"
    shutil.copytree(folder / "host0/api/0.pretake", half)
    (half / "manifest.json").unlink()
    damaged = folder / "host1/api/damaged.pretake"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{")
    (folder / "host2/notes").mkdir()
    shutil.copytree(folder / "host0/api/0.pretake", folder / "host2/api/.making.pretake")
    return folder


def test_figures_are_those_of_each_trace_times_their_number(dumps: Path) -> None:
    told = fleet(find_traces([str(dumps)]))
    (process,) = load(dumps / "host0/api/0.pretake").budget()["processes"]
    assert (told["traces"], told["unreadable"], told["blind"]) == (7, 2, 0)
    lost = {state: ns for state, ns in process["lost_ns"].items() if ns["most"]}
    assert lost
    assert {
        c["state"]: (c["least"], c["most"], c["traces"], c["hosts"]) for c in told["causes"]
    } == {state: (7 * ns["least"], 7 * ns["most"], 7, 3) for state, ns in lost.items()}
    # Of 20 calls each place makes 10.
    assert {(s["function"], s["syscall"]): s["holds"] for s in told["sites"]} == {
        ("main.read", "read"): 70,
        ("main.poll", "read"): 70,
    }
    lost_at = {row["function"]: 7 * row["most"] for row in process["lost_at"]}
    assert {s["function"]: s["most"] for s in told["sites"]} == lost_at
    assert {h["host"]: (h["traces"], h["p_ns"]) for h in told["hosts"]} == {
        "host0": (3, 3 * process["p_ns"]),
        "host1": (2, 2 * process["p_ns"]),
        "host2": (2, 2 * process["p_ns"]),
    }
    # All are alike.
    assert [h["apart"] for h in told["hosts"]] == [False] * 3


def test_what_is_no_trace_is_told_and_ends_nothing(dumps: Path) -> None:
    absent = dumps / "absent"
    told = fleet(find_traces([str(dumps), str(absent), "nosuch://there"]))
    problems = {problem["trace"]: problem["problem"] for problem in told["problems"]}
    assert list(problems) == [
        str(dumps / "host1/api/damaged.pretake"),
        str(dumps / "host1/api/half.pretake"),
        str(absent),
        "nosuch://there",
    ]
    assert problems[str(dumps / "host1/api/half.pretake")].startswith("it has no manifest")
    assert problems[str(absent)] == "no trace is there"
    assert (told["traces"], told["unreadable"]) == (7, 4)


def test_a_cluster_gives_the_same_to_the_bit(dumps: Path, scheduler: str) -> None:
    found = find_traces([str(dumps)])
    # Of an odd number, so that one is left over when they are merged two by two.
    assert len(found.places) == 8
    here, there = fleet(found), fleet(found, scheduler)
    assert json.dumps(there) == json.dumps(here)
    odd = found._replace(places=found.places[:7])
    assert json.dumps(fleet(odd, scheduler)) == json.dumps(fleet(odd))


def test_traces_on_a_store_are_found_by_folder_and_by_pattern(dumps: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(dumps), "/fleet", recursive=True)
    here, there = find_traces([str(dumps)]), find_traces(["memory://fleet"])
    assert len(there.places) == len(here.places) == 8
    assert [place for place, _ in there.problems] == ["memory:///fleet/host1/api/half.pretake"]
    assert fleet(there)["hosts"] == fleet(here)["hosts"]
    one = find_traces(["memory://fleet/host[02]/*/*.pretake"])
    assert len(one.places) == 5
    # Each once, however often it is asked for.
    again = find_traces(["memory://fleet", "memory://fleet/host[02]/*/*.pretake"])
    assert len(again.places) == 8
    store.rm("/fleet", recursive=True)


def hosts(*rows: tuple[str, int, int, int, int]) -> Part:
    """Name, traces, P time, least and most that was lost."""
    return Part(hosts={n: Sum(t, p, least, most) for n, t, p, least, most in rows})


def verdicts(part: Part) -> dict[str, tuple[bool | None, str]]:
    return {host["host"]: (host["apart"], host["why"]) for host in told_of(part)["hosts"]}


def test_a_host_stands_apart_by_twice_the_median_of_the_others_and_one_percent() -> None:
    calm = [(f"calm{n}", 5, 1000, 30, 40) for n in range(4)]
    # The others lost 4 % at most: above 8 % for certain is apart, 8 % is not.
    part = hosts(*calm, ("a", 5, 1000, 81, 90), ("b", 1, 1000, 500, 500), ("c", 5, 1000, 80, 80))
    told = verdicts(part)
    assert told["a"] == (True, "")
    assert told["b"] == (True, "one trace only")
    assert told["c"] == (False, "")
    assert {told[name] for name, *_ in calm} == {(False, "")}


def test_twice_of_next_to_nothing_is_nothing_and_what_is_unknown_is_nothing() -> None:
    calm = [(f"calm{n}", 5, 10_000, 1, 1) for n in range(3)]
    part = hosts(*calm, ("small", 5, 10_000, 99, 99), ("unknown", 5, 10_000, 1, 9_000))
    assert {apart for apart, _ in verdicts(part).values()} == {False}
    part = hosts(*calm, ("large", 5, 10_000, 101, 101))
    assert verdicts(part)["large"] == (True, "")


def test_without_others_there_is_no_verdict() -> None:
    part = hosts(("a", 5, 100, 90, 90), ("b", 5, 100, 0, 0), ("blind", 5, 0, 0, 0))
    told = verdicts(part)
    assert told["a"] == told["b"] == (None, "fewer than 3 hosts have a figure")
    assert told["blind"] == (None, "no P could be read")


def test_more_sites_than_are_kept_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.answers.fleet.MOST_SITES", 3)
    parts = [
        Part(sites={Site(f"f{n}", "read", "in_syscall"): Sum(1, 0, n, n)}) for n in (5, 1, 4, 2, 3)
    ]
    told = parts[0]
    for part in parts[1:]:
        told = merged(told, part)
    assert [site.function for site in told.sites] == ["f5", "f4", "f3"]
    assert (told.others.least, told.others.most) == (3, 3)


def test_the_command_tells_hosts_causes_and_sites(dumps: Path) -> None:
    done = CliRunner().invoke(command, [str(dumps)], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    assert "3 hosts, 7 traces, 2 not read" in done.stdout
    assert "main.poll" in done.stdout
    assert done.stderr.count("\n") == 2
    narrow = CliRunner().invoke(command, [str(dumps)], env={"COLUMNS": "50"})
    assert "Too narrow for: " in narrow.stdout
    assert max(map(len, narrow.stdout.splitlines())) <= 50
    as_json = CliRunner().invoke(command, [str(dumps), "--json"])
    assert json.loads(as_json.stdout) == fleet(find_traces([str(dumps)]))


def test_a_wait_of_the_runtime_is_no_call_of_the_programs() -> None:
    """Both at main.work: a futex of its own, and the one by which runtime.GC waits there."""
    own, runtimes = (Site("main.work", "futex", "syscall", waits) for waits in (False, True))
    one = Part(traces=1, sites={own: Sum(1, least=3, most=3), runtimes: Sum(1, least=9, most=9)})
    two = Part(traces=1, sites={own: Sum(1, least=4, most=4)})
    told = told_of(merged(one, two))["sites"]
    assert [(s["runtime_wait"], s["least"], s["traces"]) for s in told] == [
        (True, 9, 1),
        (False, 7, 2),
    ]


@pytest.mark.parametrize(("hosts", "every"), [(999, True), (1_000, False)])
def test_of_many_hosts_the_number_is_a_least_one(hosts: int, every: bool) -> None:
    names = {f"host{number}" for number in range(hosts)}
    part = Part(causes={"fault": Sum(hosts, least=1, most=1, hosts=names)})
    (cause,) = told_of(part)["causes"]
    assert (cause["hosts"], cause["every_host"]) == (hosts, every)


def test_pods_are_counted_once_each(tmp_path: Path) -> None:
    uids = ["3f2b8c1e-9d4a-4c6b-8e7f-0a1b2c3d4e5f", "00000000-0000-0000-0000-000000000001"]
    for number, pod in enumerate([uids[0], uids[1], uids[0], None]):
        scene = busy_server(20, host=f"host{number}")
        scene.rows["reach"].append({"pid": 7, "generation": 0, "ts_ns": 0, "pod": pod})
        scene.write(tmp_path, f"{number}.pretake")
    told = fleet(find_traces([str(tmp_path)]))
    assert {(cause["hosts"], cause["pods"], cause["every_pod"]) for cause in told["causes"]} == {
        (4, 2, True)
    }
    assert {(site["hosts"], site["pods"]) for site in told["sites"]} == {(4, 2)}
    done = CliRunner().invoke(command, [str(tmp_path)], env={"COLUMNS": "120"})
    heads = [line.split() for line in done.stdout.splitlines() if "lost, least" in line]
    assert [head[-1] for head in heads] == ["most", "pods", "pods"]


def test_without_pods_there_is_no_column_of_them(dumps: Path) -> None:
    done = CliRunner().invoke(command, [str(dumps)], env={"COLUMNS": "120"})
    assert "pods" not in done.stdout
