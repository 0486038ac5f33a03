"""Preemption requests of hand-made traces, and every table's declaration."""

from __future__ import annotations

from pathlib import Path

from analysis.answers.preemptions import PREEMPTIONS, interrupted_calls, ledger, preemptions
from analysis.formats.frames import FRAMES
from tests.unit.analysis.scene import FUTEX, POLL, US, Scene, only


def test_request_that_stopped_by_a_signal(tmp_path: Path) -> None:
    scene = Scene()
    scene.runtime(100, "preempt_request", 19, 2, target_tid=11, goid=5, reason="time_slice")
    scene.signal(103, "tgkill", 11, sender_tid=19)
    scene.signal(110, "deliver", 11, pc=0x4000)
    scene.runtime(112, "preempted", 11, 2, goid=5, reason="async")
    row = only(preemptions(scene.write(tmp_path)))
    assert tuple(row) == PREEMPTIONS.names
    names = ("tid", "asker_tid", "goid", "p", "reason", "pc", "outcome", "how", "interrupted_nr")
    assert [row[name] for name in names] == [
        *(11, 19, 5, 2, "time_slice", 0x4000, "stopped", "async"),
        None,
    ]
    parts = ("part_sent_ns", "part_delivered_ns", "part_stopped_ns", "latency_ns")
    assert [row[name] for name in parts] == [3 * US, 7 * US, 2 * US, 12 * US]


def test_refusal_signal_of_another_request_and_silence(tmp_path: Path) -> None:
    scene = Scene()
    scene.runtime(100, "preempt_request", 19, 2, target_tid=11, reason="gc")
    scene.signal(101, "tgkill", 12)
    scene.runtime(105, "preempt_refused", 11, 2, reason="unsafe_point")
    scene.runtime(200, "preempt_request", 19, 2, target_tid=11, reason="gc")
    scene.runtime(300, "preempt_request", 19, 2, target_tid=11, reason="gc")
    scene.signal(302, "tgkill", 11)
    scene.runtime(310, "preempted", 11, 2, reason="cooperative")
    table = preemptions(scene.write(tmp_path))
    assert table["outcome"].astype(object).where(table["outcome"].notna(), None).tolist() == [
        "refused",
        None,
        "stopped",
    ]
    assert table["how"].iloc[[0, 2]].tolist() == ["unsafe_point", "cooperative"]
    assert table["sent_ns"].isna().tolist() == [True, True, False]
    assert table["latency_ns"].isna().tolist() == [True, True, False]
    assert table["part_stopped_ns"].iloc[2] == 10 * US


def ask(scene: Scene, at: int) -> None:
    """Request a stop of thread 11, by a signal a moment later."""
    scene.runtime(at, "preempt_request", 19, 2, target_tid=11, reason="time_slice")
    scene.signal(at + 1, "tgkill", 11, sender_tid=19)


def test_a_signal_that_was_refused_and_a_stop_afterwards(tmp_path: Path) -> None:
    """The request stays: the goroutine stops at the next check, or line, that it comes to."""
    scene = Scene()
    ask(scene, 100)
    scene.signal(103, "deliver", 11)
    scene.runtime(104, "preempt_refused", 11, 2, reason="unsafe_point")
    scene.runtime(150, "preempted", 11, 2, reason="async")
    row = only(preemptions(scene.write(tmp_path)))
    assert (row["outcome"], row["how"], row["why"]) == ("stopped", "async", "async")
    assert (row["latency_ns"], row["part_stopped_ns"]) == (50 * US, 47 * US)


def test_what_a_signal_does_belongs_to_its_request_though_the_next_was_asked(
    tmp_path: Path,
) -> None:
    """The thread lost its CPU in the handler of the first signal, until after the next request."""
    scene = Scene()
    ask(scene, 100)
    scene.signal(110, "deliver", 11)
    ask(scene, 120)
    scene.runtime(130, "preempted", 11, 2, reason="async")
    scene.signal(140, "deliver", 11)
    scene.runtime(145, "preempted", 11, 2, reason="async")
    table = preemptions(scene.write(tmp_path))
    assert table["outcome"].tolist() == ["stopped", "stopped"]
    assert table["latency_ns"].tolist() == [30 * US, 25 * US]
    assert table["part_stopped_ns"].tolist() == [20 * US, 5 * US]


def test_a_request_that_comes_into_the_handler_has_no_part_in_what_it_does(
    tmp_path: Path,
) -> None:
    """Go sends no second signal while one is on its way, or in its handler."""
    scene = Scene()
    ask(scene, 100)
    scene.signal(110, "deliver", 11)
    for asked in (112, 113):
        scene.runtime(asked, "preempt_request", 19, 2, target_tid=11, reason="time_slice")
    scene.runtime(130, "preempted", 11, 2, reason="async")
    ask(scene, 200)
    scene.signal(210, "deliver", 11)
    scene.runtime(211, "preempt_refused", 11, 2, reason="unsafe_point")
    scene.runtime(220, "preempt_request", 19, 2, target_tid=11, reason="time_slice")
    scene.runtime(230, "preempted", 11, 2, reason="async")
    table = preemptions(scene.write(tmp_path))
    told = table.astype(object).where(table.notna(), None)
    assert told["outcome"].tolist() == ["stopped", None, None, "refused", "stopped"]
    assert told["latency_ns"].tolist() == [30 * US, None, None, None, 10 * US]


def test_a_signal_is_its_request_s_though_others_asked_before_it_came(tmp_path: Path) -> None:
    """The thread had no CPU: sysmon asked again, and Go sends no other while one is on its way."""
    scene = Scene()
    ask(scene, 100)
    for asked in (110, 120):
        scene.runtime(asked, "preempt_request", 19, 2, target_tid=11, reason="time_slice")
    scene.signal(150, "deliver", 11, interrupted_nr=FUTEX)
    scene.runtime(152, "preempted", 11, 2, reason="async")
    # This one's signal is refused, and the next one, that had none, is stopped at a line.
    ask(scene, 200)
    scene.runtime(210, "preempt_request", 19, 2, target_tid=11, reason="time_slice")
    scene.signal(220, "deliver", 11)
    scene.runtime(221, "preempt_refused", 11, 2, reason="unsafe_point")
    scene.runtime(230, "preempted", 11, 2, reason="async")
    table = preemptions(scene.write(tmp_path))
    told = table.astype(object).where(table.notna(), None)
    assert told["outcome"].tolist() == ["stopped", None, None, "refused", "stopped"]
    joined = "an earlier signal was on its way"
    assert told["why"].tolist() == ["async", joined, joined, "unsafe point", "async"]
    assert told["latency_ns"].tolist() == [52 * US, None, None, None, 20 * US]
    assert told["part_delivered_ns"].tolist() == [49 * US, None, None, 19 * US, None]
    assert told["part_stopped_ns"].tolist() == [2 * US, None, None, 1 * US, 20 * US]
    assert told["interrupted_nr"].tolist() == [FUTEX, None, None, None, None]


def test_a_signal_whose_delivery_is_lost_does_not_take_the_next_one_s(tmp_path: Path) -> None:
    scene = Scene()
    ask(scene, 100)
    ask(scene, 200)
    scene.signal(203, "deliver", 11)
    scene.runtime(205, "preempted", 11, 2, reason="async")
    # Nobody asked anything of this thread.
    scene.signal(206, "tgkill", 12)
    scene.signal(207, "deliver", 12)
    scene.runtime(300, "preempt_request", 19, 2, target_tid=11, reason="time_slice")
    for came in (304, 306):
        scene.signal(came, "deliver", 11)
    table = preemptions(scene.write(tmp_path))
    told = table.astype(object).where(table.notna(), None)
    assert told["delivered_ns"].tolist() == [None, 203 * US, 304 * US]
    assert told["latency_ns"].tolist() == [None, 5 * US, None]


def test_a_signal_that_comes_before_the_request_s_own_is_not_its(tmp_path: Path) -> None:
    scene = Scene()
    scene.runtime(100, "preempt_request", 19, 2, target_tid=11, reason="time_slice")
    scene.signal(102, "deliver", 11, pc=0x3000)
    scene.signal(103, "tgkill", 11, sender_tid=19)
    scene.signal(110, "deliver", 11, pc=0x4000)
    scene.runtime(112, "preempted", 11, 2, reason="async")
    row = only(preemptions(scene.write(tmp_path)))
    assert (row["pc"], row["part_delivered_ns"], row["part_stopped_ns"]) == (
        0x4000,
        7 * US,
        2 * US,
    )


def test_a_check_stops_for_the_request_that_was_asked_last(tmp_path: Path) -> None:
    scene = Scene()
    ask(scene, 100)
    scene.signal(102, "deliver", 11)
    scene.runtime(103, "preempt_refused", 11, 2, reason="unsafe_point")
    ask(scene, 200)
    scene.runtime(205, "preempted", 11, 2, reason="cooperative")
    scene.signal(210, "deliver", 11)
    scene.runtime(211, "preempt_refused", 11, 2, reason="not_wanted")
    table = preemptions(scene.write(tmp_path))
    assert table["outcome"].tolist() == ["refused", "stopped"]
    assert table["how"].tolist() == ["unsafe_point", "cooperative"]
    assert table["ended_ns"].tolist() == [103 * US, 205 * US]


def test_calls_that_signals_interrupted(tmp_path: Path) -> None:
    scene = Scene()
    scene.signal(60, "deliver", 11, interrupted_nr=FUTEX)
    for begin in (100, 200):
        scene.runtime(begin, "preempt_request", 19, 2, target_tid=11)
        scene.signal(begin + 1, "tgkill", 11)
        scene.signal(begin + 5, "deliver", 11, interrupted_nr=POLL)
    scene.runtime(300, "preempt_request", 19, 2, target_tid=11)
    scene.signal(305, "deliver", 11)
    trace = scene.write(tmp_path)
    requests = preemptions(trace)["interrupted_nr"]
    assert requests.astype(object).where(requests.notna(), None).tolist() == [POLL, POLL, None]
    # That of a request before the capture began counts too.
    assert interrupted_calls(trace).to_dict("records") == [
        {"nr": POLL, "syscall": "poll", "times": 2},
        {"nr": FUTEX, "syscall": "futex", "times": 1},
    ]


def test_a_signal_that_nothing_followed_was_refused(tmp_path: Path) -> None:
    scene = Scene(attached=["uprobe:runtime.asyncPreempt2"], end_ns=9_000 * US)
    scene.task(11, 7)
    pcs = {1: "safe", 2: "unsafe_point", 3: "assembly", 4: "no_go"}
    for pc, point in pcs.items():
        function = None if point == "no_go" else f"main.f{pc}"
        scene.rows["address"].append(
            {"pid": 7, "pc": pc, "function": function, "preemption": point}
        )
        scene.runtime(pc * 1_000, "preempt_request", 19, 2, target_tid=11, reason="suspend")
        scene.signal(pc * 1_000 + 3, "deliver", 11, pc=pc)
    # An address that nobody looked up, and one so late that its end may not have been seen.
    for pc, at in ((5, 5_000), (1, 8_500)):
        scene.runtime(at, "preempt_request", 19, 2, target_tid=11, reason="suspend")
        scene.signal(at + 3, "deliver", 11, pc=pc)
    requests = preemptions(scene.write(tmp_path))
    told = requests.astype(object).where(requests.notna(), None)
    assert told["outcome"].tolist() == ["refused"] * 5 + [None]
    assert told["why"].tolist() == [
        "not wanted",
        "unsafe point in function main.f2",
        "assembly function main.f3",
        "no Go code",
        *(None, None),
    ]
    assert told["function"].tolist() == ["main.f1", "main.f2", "main.f3", None, None, "main.f1"]
    counted = ledger(requests)
    assert counted["requests"].tolist() == [1] * 6
    assert counted["signals"].tolist() == [1] * 6


def test_a_signal_that_met_the_way_to_a_stop_has_no_part_in_it(tmp_path: Path) -> None:
    """The handler of the first went back to asyncPreempt, where two more came before the stop."""
    scene = Scene(attached=["uprobe:runtime.asyncPreempt2"], end_ns=9_000 * US)
    scene.task(11, 7)
    for pc, function, point in ((1, "main.loop", "safe"), (2, "runtime.asyncPreempt", "assembly")):
        scene.rows["address"].append(
            {"pid": 7, "pc": pc, "function": function, "preemption": point}
        )
    ask(scene, 100)
    scene.signal(110, "deliver", 11, pc=1)
    # This one has no signal of its own: one was in its handler.
    scene.runtime(112, "preempt_request", 19, 2, target_tid=11, reason="time_slice")
    for asked in (120, 130):
        ask(scene, asked)
        scene.signal(asked + 5, "deliver", 11, pc=2)
    scene.runtime(140, "preempted", 11, 2, reason="async")
    # Here the goroutine goes on after its stop: nothing is under way, and the next one stops it.
    ask(scene, 200)
    scene.signal(205, "deliver", 11, pc=2)
    ask(scene, 300)
    scene.signal(305, "deliver", 11, pc=1)
    scene.runtime(310, "preempted", 11, 2, reason="async")
    requests = preemptions(scene.write(tmp_path))
    told = requests.astype(object).where(requests.notna(), None)
    refused = ("refused", "unsafe_point", "assembly function runtime.asyncPreempt", None)
    columns = (told[name] for name in ("outcome", "how", "why", "latency_ns"))
    assert list(zip(*columns, strict=True)) == [
        ("stopped", "async", "async", 40 * US),
        (None, None, "an earlier signal was on its way", None),
        *(refused, refused, refused),
        ("stopped", "async", "async", 10 * US),
    ]
    assert told["function"].tolist() == [
        "main.loop",
        None,
        *["runtime.asyncPreempt"] * 3,
        "main.loop",
    ]


def test_a_request_that_came_before_a_signal_that_did_nothing_has_joined_it(
    tmp_path: Path,
) -> None:
    scene = Scene(attached=["uprobe:runtime.asyncPreempt2"], end_ns=9_000 * US)
    ask(scene, 100)
    scene.runtime(110, "preempt_request", 19, 2, target_tid=11, reason="time_slice")
    scene.signal(150, "deliver", 11)
    scene.runtime(160, "preempt_request", 19, 2, target_tid=11, reason="time_slice")
    told = preemptions(scene.write(tmp_path))[["outcome", "why"]]
    assert told.astype(object).where(told.notna(), None).to_numpy().tolist() == [
        ["refused", None],
        [None, "an earlier signal was on its way"],
        [None, None],
    ]


def test_no_request_is_an_empty_table(tmp_path: Path) -> None:
    table = preemptions(Scene().write(tmp_path))
    assert tuple(table.columns) == PREEMPTIONS.names
    assert len(table) == 0


def test_every_declared_column_says_what_it_is() -> None:
    names = [frame.name for frame in FRAMES]
    assert len(set(names)) == len(names)
    for frame in FRAMES:
        assert frame.meaning
        for field in frame.fields:
            assert len(field.meaning) > 5, (frame.name, field.name)
            if field.unit:
                assert (
                    field.type == "int"
                    or field.name.endswith(("loss_ns", "mean_ns"))
                    or "gain" in field.name
                )
