"""``pretake run`` on a user's own file, as the user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from reference_runtime.channels import Channel

async def answers():
    return 42

async def waits():
    await Channel(0).recv()

async def raises():
    raise ValueError("no such thing")
"""


def run(folder: Path, function: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    file = folder / "program.py"
    file.write_text(PROGRAM)
    command = [sys.executable, "-m", "pretake", "run", f"{file}:{function}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_file_of_the_users_runs(tmp_path: Path) -> None:
    done = run(tmp_path, "answers", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == 42


def test_a_deadlock_tells_where_each_goroutine_waits(tmp_path: Path) -> None:
    done = run(tmp_path, "waits")
    assert done.returncode == 2
    assert done.stderr.startswith("fatal error: all goroutines are asleep")
    assert "program.py" in done.stderr


def test_a_goroutine_that_raises_ends_the_program_with_its_own_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, "raises")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert "program.py" in lines[1]
    assert "ValueError: no such thing" in lines
    assert "goroutine 1 [raises]" in lines
    assert "scheduler.py" not in done.stderr


def test_the_rules_are_told_in_the_result_and_others_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "answers", "--json", "--like", "go1.13")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["like"], result["preempt"]) == ("go1.13", "cooperative")
    done = run(tmp_path, "answers", "--like", "go1.0")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "pretake: no rules are called 'go1.0': choose one of lean, go1.13, go1.21, go1.27, gvisor "
        "(--like)"
    ]


def test_a_backup_is_for_a_policy_that_is_told_of_blocks(tmp_path: Path) -> None:
    done = run(tmp_path, "answers", "--retake", "sysmon", "--backup", "20")
    assert done.returncode == 2
    assert "policy sysmon has no backup" in done.stderr
    done = run(tmp_path, "answers", "--retake", "sched_out", "--backup", "0")
    assert "a backup of 0 ms is none" in done.stderr
    assert len(done.stderr.splitlines()) == 1
