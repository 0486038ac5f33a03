"""Programs that exist twice: the order in which real Go runs their goroutines."""

from __future__ import annotations

import json
import subprocess
from collections import Counter

import pytest

from tests.go.toolchains import VERSIONS, build
from tests.unit.runtime.scenes import DIFFERENT, GO, SCENES

ROUNDS = 51


@pytest.mark.parametrize("version", VERSIONS)
def test_go_runs_its_goroutines_in_the_order_that_is_asked_of_the_rules(version: str) -> None:
    """The order of most rounds: in a round in which the thread had no CPU for long, Go asked a
    goroutine to stop, and another order came about.
    """
    program = build("conformance", version)
    done = subprocess.run([program, str(ROUNDS)], capture_output=True, text=True, check=True)
    told = {
        name: Counter(tuple(log) for log in logs) for name, logs in json.loads(done.stdout).items()
    }
    most = {name: list(logs.most_common(1)[0][0]) for name, logs in told.items()}
    assert most == GO | {name: theirs for name, (theirs, _) in DIFFERENT.items()}
    assert set(most) == set(SCENES)
