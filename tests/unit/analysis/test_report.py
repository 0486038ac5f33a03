"""The report: the answer first, names of strangers as text, and no more than a mail takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from analysis.ptime.timeline import STATES, TIMELINE, timelines
from analysis.report import figures, report
from analysis.report.answer import answer
from analysis.report.material import gather
from analysis.units import count_text, duration_text, percent_text
from tests.unit.analysis.scene import US, Scene
from tests.unit.analysis.test_episodes import BUSY, CALM, retaken
from tracer.errors import PretakeError
from tracer.trace.reader import Trace

GO = {"runtime": "go", "version": "go1.25.5"}
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def harmful(**manifest: object) -> Scene:
    scene = Scene(end_ns=1_000 * US, **manifest)
    retaken(scene)
    return scene


def calm() -> Scene:
    scene = Scene(end_ns=1_000 * US)
    retaken(scene, **CALM)
    return scene


def test_answer_names_where_p_time_was_lost(tmp_path: Path) -> None:
    found = answer(gather([harmful(target=GO).write(tmp_path)]))
    # P 0 was held for 50 of 1,000 µs while two goroutines waited, and then was on its way for 15.
    assert found.sentence.endswith(
        "% of the P time of process 7 was lost, most of it in read whose place in the program is "
        "not known."
    )
    assert [figure.value for figure in found.figures[:2]] == ["65 µs", "50 µs"]
    assert found.todo[0].share.endswith("5 %")
    assert "fewer of these calls at a time" in found.todo[0].today
    assert "5 % of P time was lost until sysmon took P" in found.by_runtime
    assert not found.good


def test_answer_of_a_run_with_nothing_wrong_says_so(tmp_path: Path) -> None:
    scene = Scene(end_ns=100_000 * US, target=GO)
    scene.task(12, 7)
    scene.switch(0, 0, 12)
    scene.runtime(0, "run", 12, 0, goid=77)
    found = answer(gather([scene.write(tmp_path)]))
    assert found.sentence.startswith("Nothing is wrong")
    assert found.good


def test_answer_does_not_call_unknown_nothing(tmp_path: Path) -> None:
    no_offsets = {"what": "block, and p, m and goid of runtime", "why": "no row for go1.30"}
    strange = Scene(target={"runtime": "go", "version": "go1.30"}, missing=[no_offsets])
    for scene, name in ((Scene(), "no runtime"), (strange, "strange")):
        found = answer(gather([scene.write(tmp_path, name)]))
        assert found.sentence.startswith("The trace cannot tell")
        assert not found.good


def test_answer_compares_policies(tmp_path: Path) -> None:
    slow = harmful(workload={"policy": "sysmon"}).write(tmp_path, "a")
    fast = Scene(workload={"policy": "block"})
    fast.runtime(80, "handoff", 11, 4, reason="syscall_block")
    fast.runtime(113, "run", 12, 4)
    fast.block(100, 11, 90, None, p_use="handed_off")
    fast.exit(500, 11, 90)
    found = answer(gather([slow, fast.write(tmp_path, "b")]))
    assert found.sentence == (
        "Under block P runs again 13 µs after a thread blocks, under sysmon after 65 µs "
        "(medians): 5 times as long."
    )


def _runs(folder: Path) -> list[Trace]:
    """Two workloads under two policies each; a median of 65 µs under all but mix under block."""
    made = []
    for workload in ("echo", "mix"):
        for policy in ("sysmon", "block"):
            scene = harmful(workload={"name": workload, "policy": policy})
            if (workload, policy) == ("mix", "block"):
                scene.rows["runtime"][-2]["ts_ns"] = 230 * US
            made.append(scene.write(folder, f"{workload}-{policy}.pretake"))
    return made


def test_a_workload_is_compared_with_itself_alone(tmp_path: Path) -> None:
    traces = _runs(tmp_path)
    found = answer(gather(traces))
    assert found.sentence == (
        "mix: Under mix-sysmon P runs again 65 µs after a thread blocks, under mix-block after "
        "130 µs (medians): 2 times as long. "
        "echo: P runs again equally soon in all of them: 65 µs (median)."
    )
    echo_sysmon, _, mix_sysmon, _ = traces
    found = answer(gather([echo_sysmon, mix_sysmon]))
    assert found.sentence.startswith("These traces have no two P-retake latencies of one workload")


def test_a_policy_has_one_colour_and_a_workload_one_dash(tmp_path: Path) -> None:
    lines = figures.distribution(gather(_runs(tmp_path)), "retake_ns", "")["data"]
    colours = [line["line"]["color"] for line in lines]
    dashes = [line["line"]["dash"] for line in lines]
    assert colours[:2] == colours[2:]
    assert colours[0] != colours[1]
    assert dashes[0] == dashes[1] != dashes[2] == dashes[3]


def test_a_report_of_many_traces_is_small_enough_for_a_mail(tmp_path: Path) -> None:
    """Twelve, as a demo makes them, whose holds lie everywhere in time and length."""
    traces = []
    for number in range(12):
        scene = Scene(end_ns=1_000_000 * US, workload={"name": f"w{number % 2}"})
        for call in range(900):
            at, tid, hold = 1_000 * call, 11 + call, 1.013**call
            scene.block(at + 100, tid, at + 90, 0, **BUSY)
            scene.runtime(at + 100 + hold, "retake", 10, 0, reason="sysmon", target_tid=tid)
            scene.runtime(at + 110 + hold, "run", tid + 1, 0)
            scene.exit(at + 120 + hold, tid, at + 90)
        traces.append(scene.write(tmp_path, f"a-name-of-some-length-{number}.pretake"))
    assert report(traces, tmp_path / "report.html").stat().st_size <= 1_500_000


def test_answer_tells_what_was_lost(tmp_path: Path) -> None:
    scene = harmful(lost={"block": 2})
    scene.loss(390, 395, "block", 2)
    found = answer(gather([scene.write(tmp_path)]))
    # 3 tasks, 1 block, 1 call, 6 transitions, 2 wake-ups, 3 switches, 1 loss; and the 2 lost.
    assert found.caveat == ("2 of 19 records were lost; 1 episodes at those moments are left out.")


def test_names_of_strangers_are_text(tmp_path: Path) -> None:
    scene = harmful(
        workload={"policy": HOSTILE, "name": HOSTILE},
        command=[HOSTILE],
        host=HOSTILE,
        missing=[{"what": HOSTILE, "why": "</script><script>alert(3)</script>"}],
        target={"path": HOSTILE, "version": HOSTILE},
        error=HOSTILE,
    )
    scene.rows["task"][0]["comm"] = '"><script>a()'
    page = report([scene.write(tmp_path)], tmp_path / "r.html").read_text()
    assert page.count("<script") == 3
    assert "<img" not in page
    assert "onerror=alert(2)&gt;" in page
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "script-src 'sha256-" in policy[1]
    assert "script-src 'unsafe-inline'" not in policy[1]


def test_page_needs_nothing_from_the_net_and_is_small(tmp_path: Path) -> None:
    page = report([harmful().write(tmp_path)], tmp_path / "r.html").read_text()
    assert len(page.encode()) < 6_000_000
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"https?://", own)
    pictures = re.search(r'id="pictures">(.*?)</script>', page, re.DOTALL)
    assert pictures is not None
    assert {"retake", "hold", "parts", "classes", "heat0", "worst0x0"} <= set(
        json.loads(pictures[1])
    )


def test_report_of_nothing_is_a_page_all_the_same(tmp_path: Path) -> None:
    page = report([Scene().write(tmp_path)], tmp_path / "r.html").read_text()
    assert "No P was held" in page


def test_report_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(PretakeError, match="cannot write"):
        report([Scene().write(tmp_path)], tmp_path / "taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.pretake", "taken"]


def test_time_line_by_hand(tmp_path: Path) -> None:
    """The taker's CPU ends nowhere in the trace; the call's exit is far off and not shown."""
    scene = harmful()
    trace: Trace = scene.write(tmp_path)
    lanes = timelines(trace, gather([trace])[0].worst)
    assert tuple(lanes.columns) == TIMELINE.names
    begin, end = lanes["begin_ns"].min() // US, lanes["end_ns"].max() // US
    spans = [
        (lane, state, first // US, last // US)
        for lane, state, first, last in lanes[["lane", "state", "begin_ns", "end_ns"]].itertuples(
            index=False
        )
    ]
    # From the entry (90) to 1.5 times the way to run (75 us), and 12 % around.
    assert (begin, end) == (67, 300)
    assert spans == [
        ("P 0", "used", 67, 100),
        ("P 0", "held", 100, 150),
        ("P 0", "moving", 150, 165),
        ("P 0", "used", 165, 300),
        ("thread 11", "running", 67, 101),
        ("thread 11", "blocked", 101, 300),
        ("thread 19", "running", 130, 300),
        ("thread 12", "blocked", 67, 157),
        ("thread 12", "waiting", 157, 160),
        ("thread 12", "running", 160, 300),
    ]
    assert set(lanes["state"]) <= set(STATES)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (999.7, "1 µs"),
        (1_234, "1.23 µs"),
        (20_000_000, "20 ms"),
        (1_500_000_000, "1.5 s"),
        (123_456_000_000_000, "123,456 s"),
        (None, "–"),
    ],
)
def test_durations_as_text(ns: float | None, text: str) -> None:
    assert duration_text(ns) == text


def test_counts_and_shares_as_text() -> None:
    assert (count_text(1_234_567), count_text(None)) == ("1,234,567", "–")
    assert (percent_text(0.001), percent_text(0), percent_text(12.34)) == (
        "< 0.01 %",
        "0 %",
        "12.3 %",
    )
