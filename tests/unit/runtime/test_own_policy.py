"""A retake policy that a user wrote: an interpreted class in one file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reference_runtime import Runtime, WaitGroup, go, goroutines, spin
from reference_runtime.policies import POLICIES, make_policy
from reference_runtime.policies.base import BLOCK, NORMAL, NOT_YET, RAW, RetakePolicy, Site
from reference_runtime.policies.block import BlockPolicy
from reference_runtime.sim.sim_host import SimHost
from reference_runtime.transitions import BY_THREAD_STATE
from reference_runtime.workloads import run_workload
from tracer.errors import PretakeError

if TYPE_CHECKING:
    from reference_runtime.gmp import P, Sched

US = 1_000
MS = 1_000_000

PATIENT = """
from reference_runtime.policies.base import NOT_YET, RetakePolicy
from reference_runtime.transitions import BY_SYSMON

class Patient(RetakePolicy):
    def wanted(self, sched, p, now_ns):
        m = p.m
        if m is None or now_ns - m.enter_ns < 300_000:
            return NOT_YET
        return BY_SYSMON

class Broken(RetakePolicy):
    def wanted(self, sched, p, now_ns):
        return p.no_such_field

class Needs(RetakePolicy):
    def __init__(self, more):
        super().__init__()

class Other:
    pass
"""


class Patient(RetakePolicy):
    """Waits for 300 µs, and tells another reason than the policies here would."""

    name = "patient"

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def wanted(self, sched: Sched, p: P, now_ns: int) -> int:  # noqa: ARG002
        self.asked += 1
        m = p.m
        if m is None or now_ns - m.enter_ns < 300 * US:
            return NOT_YET
        return BY_THREAD_STATE


def one_call(host: SimHost) -> Any:  # noqa: ANN401
    async def main() -> None:
        done = WaitGroup(2)

        async def call() -> None:
            await goroutines.syscall(Site("call"), host.call, (0, 5 * MS))
            done.done()

        async def work() -> None:
            await spin(MS)
            done.done()

        go(call())
        go(work())
        await done.wait()

    return main


def test_an_interpreted_class_decides_when_a_p_comes_back() -> None:
    host, policy = SimHost(2), Patient()
    runtime = Runtime(1, policy, host=host)
    runtime.run(one_call(host))
    (retake,) = runtime.record.retakes
    assert retake.reason == "thread_state"
    # At the first round after 300 µs: 20 µs of sleep and the kernel's slack of 50 lie between two.
    assert 300 * US <= retake.ts_ns - retake.enter_ns < 400 * US
    assert policy.asked > 3


def test_one_may_inherit_from_any_of_the_policies() -> None:
    class Mostly(BlockPolicy):
        """As block, but for one site."""

        def mode(self, site: Site) -> int:
            return NORMAL if site.name == "mine" else int(super().mode(site))

    policy = Mostly()
    assert [policy.mode(Site(name)) for name in ("mine", "other")] == [NORMAL, BLOCK]
    assert policy.mode(Site("never", RAW)) == RAW
    result: dict[str, Any] = run_workload("prime", procs=1, rounds=7)
    assert result["runtime"]["retakes"] == 7
    runtime = Runtime(1, policy)

    async def main() -> int:
        await goroutines.nanosleep(1_000, Site("other"))
        return 1

    assert runtime.run(main) == 1
    assert runtime.record.handoffs == 1


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_here_can_be_inherited_from(name: str) -> None:
    base: Any = POLICIES[name]

    class Own(base):  # type: ignore[misc]
        """Nothing of its own."""

    host = SimHost(2)
    runtime = Runtime(1 if name != "raw" else 2, Own(), host=host)
    runtime.run(one_call(host))
    assert Own().mode(Site("never", RAW)) == RAW


def test_the_command_takes_a_policy_from_a_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Arrow has no wheel for this Python")
    file = tmp_path / "patient.py"
    file.write_text(PATIENT)
    command = [sys.executable, "-m", "pretake", "run", "prime", "--rounds", "7", "--json"]
    done = subprocess.run(
        [*command, "--retake", f"{file}:Patient"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["policy"], told["runtime"]["retakes"]) == ("Patient", 7)
    assert told["retake_ns"]["p50"] >= 300 * US
    done = subprocess.run(
        [*command, "--retake", f"{file}:Broken"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no_such_field" in done.stderr
    assert "policy Broken, in the monitor" in done.stderr


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing.py:Patient", "there is no file missing.py"),
        ("patient.py:Nobody", "has no retake policy 'Nobody'"),
        ("patient.py:Other", "has no retake policy 'Other'"),
        ("patient.py:Needs", "cannot be made"),
        ("bad.py:Patient", "does not compile"),
    ],
)
def test_what_is_no_policy_is_told_in_one_line(
    name: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "patient.py").write_text(PATIENT)
    (tmp_path / "bad.py").write_text("class :\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PretakeError, match=problem) as told:
        make_policy(name)
    assert "\n" not in str(told.value)
    assert told.value.mend
