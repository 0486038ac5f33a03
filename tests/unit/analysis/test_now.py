"""What to do now, read off budgets made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.answers.budget import Budget, Process
from analysis.answers.now import range_text, what_now
from analysis.ptime.engine.state import STATES

SECOND = 1_000_000_000


def process(states: dict[str, int], **more: object) -> Process:
    """Two Ps for half a second; what is not in ``states`` is running."""
    total = SECOND
    spent = {**dict.fromkeys(STATES, 0), **states}
    spent["running"] = total - sum(states.values())
    lost = {s: {"least": states.get(s, 0), "most": states.get(s, 0)} for s in STATES[1:7]}
    made: dict[str, Any] = {
        "pid": 7,
        "comm": "server",
        "container": None,
        "pod": None,
        "p_ns": total,
        "states": spent,
        "of_which": {"throttled": 0, "idle_beside_work": 0},
        "lost_ns": lost,
        "lost_at": [],
        "stops": {"every": True, "unknown": 0, "waited_for": []},
        "procs": 2,
        "pressure": {"total": {"seconds": 0.5, "some": 40.0, "some_most": 60.0}},
    }
    return {**made, **more}  # type: ignore[typeddict-item]


def read(ns: int, **more: object) -> dict[str, Any]:
    row = {"state": "syscall", "syscall": "read", "function": "main.work", "file": "/s/main.go"}
    row |= {"raw": False, "runtime_wait": False}
    return {**row, "line": 34, "holds": 3, "blocked_ns": ns, "least": ns, "most": ns, **more}


def budget(*processes: Process) -> Budget:
    return {"processes": list(processes)}


def test_a_call_is_told_with_its_place_and_what_helps() -> None:
    held = 380_000_000
    told = what_now(budget(process({"syscall": held}, lost_at=[read(held)])), "go")
    assert told.sentence == (
        "38 % of the P time of server (pid 7) was lost, most of it at main.go:34 (read)."
    )
    (finding,) = told.findings
    assert "network poller" in finding.today
    assert finding.today.endswith(
        "GOMAXPROCS 2 → 3 (that P would have had work for up to 60 % of the time)"
    )
    assert "block" in told.by_runtime
    assert not told.good
    # Of another runtime there is no Go to change.
    assert not what_now(
        budget(process({"syscall": held}, lost_at=[read(held)])), "none"
    ).by_runtime


def test_nobody_takes_p_from_a_call_that_the_runtime_was_not_told_of() -> None:
    rows = [read(300_000_000, raw=True), read(20_000_000, line=40)]
    told = what_now(budget(process({"syscall": 320_000_000}, lost_at=rows)), "go")
    first, second = told.findings
    assert "or syscall.Syscall in place of the raw call, so that sysmon can" in first.today
    assert "raw" not in second.today
    assert second.today.startswith("a descriptor that the network poller waits for")
    # Only the second would be taken by an earlier sysmon.
    assert told.by_runtime.startswith("2 % of P time")


@pytest.mark.parametrize(("idle_ns", "helps"), [(499_999_999, True), (500_000_000, False)])
def test_one_more_p_would_be_idle_where_one_is_already(idle_ns: int, helps: bool) -> None:
    """Two Ps for half a second: one of them is idle on the average if both are for half of it."""
    row = read(10_000_000)
    made = process({"syscall": 10_000_000, "idle": idle_ns}, lost_at=[row])
    (finding,) = what_now(budget(made), "go").findings
    assert ("GOMAXPROCS" in finding.today) == helps


def test_no_poller_waits_for_a_file() -> None:
    row = read(10_000_000, syscall="fdatasync")
    (finding,) = what_now(budget(process({"syscall": 10_000_000}, lost_at=[row])), "go").findings
    assert "poller" not in finding.today
    assert finding.today.startswith("fewer of these calls at a time")


def test_a_sleep_in_the_kernel_is_one_that_the_runtime_can_do() -> None:
    row = read(10_000_000, syscall="nanosleep")
    (finding,) = what_now(budget(process({"syscall": 10_000_000}, lost_at=[row])), "go").findings
    assert finding.today.startswith("time.Sleep, which holds no P, or fewer of these calls")


def test_a_quota_is_larger_by_as_many_cpus_as_it_kept_away() -> None:
    """0.09 s of P time in half a second are 0.18 CPUs: 18 ms in each 100."""
    more = {"of_which": {"throttled": 90_000_000, "idle_beside_work": 0}}
    (finding,) = what_now(budget(process({"no_cpu": 100_000_000}, **more)), "go").findings
    assert finding.what == "in which a CPU quota stopped its threads"
    assert finding.today == (
        "a CPU quota (cpu.max) larger by 0.18 CPUs, which is 18 ms more in each period of "
        "100 ms, or a GOMAXPROCS that fits the quota"
    )


def test_a_quota_that_did_the_smaller_part_is_told_beside_what_did_the_larger() -> None:
    more = {"of_which": {"throttled": 40_000_000, "idle_beside_work": 0}}
    (finding,) = what_now(budget(process({"no_cpu": 100_000_000}, **more)), "go").findings
    assert finding.what == "in which its threads waited for a CPU"
    assert "more CPUs, or a CPU quota (cpu.max) larger by 0.08 CPUs" in finding.today


def test_where_no_cgroup_was_asked_nobody_knows_whether_a_quota_did_it() -> None:
    more = {"of_which": {"throttled": None, "idle_beside_work": 0}}
    (finding,) = what_now(budget(process({"no_cpu": 100_000_000}, **more)), "go").findings
    assert finding.what == "in which its threads waited for a CPU"
    assert "whether a CPU quota did it is not known" in finding.today


@pytest.mark.parametrize("function", ["runtime.futex", "PyThread_acquire_lock_timed"])
def test_a_wait_of_the_runtime_is_named_and_nobody_is_told_to_change_it(function: str) -> None:
    row = read(10_000_000, syscall="futex", function=function, runtime_wait=True)
    told = what_now(budget(process({"syscall": 10_000_000}, lost_at=[row])), "go")
    (finding,) = told.findings
    assert finding.what == "in waits of the runtime itself (futex)"
    assert finding.today == ""
    # Nor does sysmon take P from it.
    assert told.by_runtime == ""


def test_a_wait_of_the_runtime_names_what_the_program_called() -> None:
    """Such as runtime.GC, which waits for each P: no descriptor and no other call helps."""
    row = read(10_000_000, syscall="futex", raw=True, runtime_wait=True)
    (finding,) = what_now(budget(process({"syscall": 10_000_000}, lost_at=[row])), "go").findings
    assert finding.what == "in waits of the runtime itself (futex), under main.go:34"
    assert finding.today == ""


@pytest.mark.parametrize(
    ("state", "more", "help_"),
    [
        ("no_cpu", {}, "more CPUs"),
        ("no_cpu", {"of_which": {"throttled": 90_000_000, "idle_beside_work": 0}}, "CPU quota"),
        ("stopped", {}, "SIGSTOP"),
        ("stw", {}, "GOGC"),
        ("transit", {}, ""),
    ],
)
def test_each_cause_has_what_helps(state: str, more: dict[str, Any], help_: str) -> None:
    (finding,) = what_now(budget(process({state: 100_000_000}, **more)), "go").findings
    assert (finding.cause, finding.least_percent) == (state, 10.0)
    assert help_ in finding.today
    assert bool(help_) == bool(finding.today)


def test_a_stop_that_waits_is_told_with_whom_it_waits_for() -> None:
    """Two stops of 100 and 300 ms waited for a loop: P stood for none of it, and ran for 0.4 s."""
    stops = {
        "count": 2,
        "every": True,
        "unknown": 0,
        "stopping_ns": {"p50": 100_000_000, "p99": 300_000_000, "max": 300_000_000},
        "waited_for": [
            {"function": "main.f", "syscall": None, "state": "running", "ns": 390_000_000},
            {"function": None, "syscall": "read", "state": "syscall", "ns": 10_000_000},
        ],
    }
    told = what_now(budget(process({}, stops=stops)), "go")
    assert told.stops.startswith(
        "2 stop-the-worlds took 100 ms (median; at most 300 ms) until all Ps stood, and waited "
        "longest for main.f (running, 390 ms in all). What helps: do that in smaller pieces"
    )
    assert not told.good
    seen = what_now(budget(process({}, stops={**stops, "every": False})), "go")
    assert seen.stops == f"At least {told.stops}"
    some = what_now(budget(process({}, stops={**stops, "unknown": 1})), "go")
    assert "(median; at most 300 ms, of 1 not known) until" in some.stops
    short = {**stops, "waited_for": [{**stops["waited_for"][0], "ns": 1_000}]}
    assert what_now(budget(process({}, stops=short)), "go").stops == ""


@pytest.mark.parametrize(
    ("row", "told_as", "helps"),
    [
        (("main.read", "read", "syscall"), "read in main.read (syscall", "syscall.Syscall in"),
        (("internal/runtime/syscall.Syscall6", None, "running"), "Syscall6", "syscall.Syscall in"),
        (("runtime.lock2", "futex", "syscall"), "futex in runtime.lock2", "in smaller pieces"),
        (("main.touch", None, "fault"), "main.touch (fault", "MADV_POPULATE_READ"),
        ((None, None, "no_cpu"), "a function without a name (no_cpu", "in smaller pieces"),
    ],
)
def test_what_helps_is_about_what_a_stop_waits_for(
    row: tuple[str | None, str | None, str], told_as: str, helps: str
) -> None:
    waited = dict(zip(("function", "syscall", "state"), row, strict=True))
    stops = {
        "count": 1,
        "every": True,
        "unknown": 0,
        "stopping_ns": {"p50": 400_000_000, "p99": 400_000_000, "max": 400_000_000},
        "waited_for": [{**waited, "ns": 390_000_000}],
    }
    told = what_now(budget(process({}, stops=stops)), "go").stops
    assert told_as in told
    assert helps in told.partition("What helps")[2]


def test_a_fault_is_mended_by_reading() -> None:
    row = read(200_000_000, state="fault", syscall=None)
    (finding,) = what_now(budget(process({"fault": 200_000_000}, lost_at=[row])), "go").findings
    assert "MADV_POPULATE_READ" in finding.today


def test_nothing_is_wrong_only_where_the_budget_says_so() -> None:
    assert what_now(budget(process({})), "go").good
    unknown = what_now(budget(process({"unknown": 100_000_000})), "go")
    assert not unknown.good
    assert unknown.sentence == (
        "No P time of server (pid 7) is known to be lost; 10 % of it is not known."
    )
    mostly = what_now(budget(process({"unknown": 900_000_000, "syscall": 50_000_000})), "go")
    assert mostly.sentence == (
        "Where 90 % of the P time of server (pid 7) went is not known. 5 % of it was lost."
    )
    assert not mostly.good
    assert not what_now(budget(), "go").good


NOTHING_LOST = {s: {"least": 0, "most": 0} for s in STATES[1:7]}


@pytest.mark.parametrize("state", ["no_cpu", "stopped", "stw"])
def test_a_p_whose_own_goroutine_cannot_go_on_is_not_nothing(state: str) -> None:
    """Nothing else waits, so no P time is lost: but the only goroutine stands for half of it."""
    told = what_now(budget(process({state: SECOND // 2}, lost_ns=NOTHING_LOST)), "go")
    assert not told.good
    assert told.findings == ()
    (finding,) = told.stood
    assert (finding.cause, finding.least_percent, finding.most_percent) == (state, 50.0, 50.0)
    assert finding.today
    assert told.sentence == (
        "Next to no P time of server (pid 7) was lost to work that waited, but for 50 % of it its "
        f"own goroutines could not go on, most of it {finding.what}."
    )


def test_a_page_fault_of_the_only_goroutine_is_told_with_its_place() -> None:
    row = read(SECOND // 5, state="fault", syscall=None, least=0, most=0)
    made = process({"fault": SECOND // 5}, lost_ns=NOTHING_LOST, lost_at=[row])
    told = what_now(budget(made), "go")
    (finding,) = told.stood
    assert finding.what == "at main.go:34 (a page fault)"
    assert "MADV_POPULATE_READ" in finding.today
    assert not told.good


def test_page_faults_beyond_the_places_that_the_budget_names_are_told_together() -> None:
    row = read(SECOND // 5, state="fault", syscall=None, least=0, most=0)
    made = process({"fault": SECOND // 2}, lost_ns=NOTHING_LOST, lost_at=[row])
    told = {f.what: f.least_percent for f in what_now(budget(made), "go").stood}
    assert told == {
        "in page faults at other places": pytest.approx(30.0),
        "at main.go:34 (a page fault)": pytest.approx(20.0),
    }


def test_what_was_lost_is_not_told_a_second_time() -> None:
    """Of 0.5 s without a CPU 0.05 to 0.1 s were lost."""
    lost = {**NOTHING_LOST, "no_cpu": {"least": SECOND // 20, "most": SECOND // 10}}
    told = what_now(budget(process({"no_cpu": SECOND // 2}, lost_ns=lost)), "go")
    (found,), (stood,) = told.findings, told.stood
    assert (found.least_percent, found.most_percent) == (5.0, 10.0)
    assert (stood.least_percent, stood.most_percent) == (40.0, 45.0)
    assert told.sentence.startswith("5 to 10 % of the P time of server (pid 7) was lost")
    assert "For another 40 to 45 % its own goroutines could not go on" in told.sentence


def test_a_little_time_without_a_cpu_is_nothing_wrong() -> None:
    assert what_now(budget(process({"no_cpu": SECOND // 50}, lost_ns=NOTHING_LOST)), "go").good


def test_the_other_processes_are_named() -> None:
    other = process({"syscall": 20_000_000}, pid=9, comm="go")
    told = what_now(budget(process({"syscall": 380_000_000}), other), "go")
    assert told.others == "Other processes with Ps, and what they lost: go (pid 9) 2 %."


def test_what_is_known_between_two_ends_is_told_with_both() -> None:
    assert range_text(12.0, 38.0) == "12 to 38 %"
    assert range_text(38.0, 38.0) == "38 %"
    assert range_text(0.0, 0.004) == "0 to < 0.01 %"
