"""Retakes told without a uprobe, held against the uprobes' of the same run."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.trust.probes import compare_probes
from tests.go.capture import capture

VERSIONS = ("1.19.8", "1.22.10", "1.25.5", "1.26.6", "1.27.3")


@pytest.mark.parametrize("version", VERSIONS)
def test_retakes_are_those_that_uprobes_tell(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matched = exact = inferred = inside = 0
    for procs in ("1", "2", "8"):
        monkeypatch.setenv("GOMAXPROCS", procs)
        trace = capture(tmp_path / procs, "blockread", ["50"], version=version, probes="both")
        told = compare_probes(trace)
        matched, exact = matched + told.matched, exact + told.exact
        inferred, inside = inferred + told.inferred, inside + told.inside_count
        # The views count those of the kind ``retake``, which are the probes' alone.
        retakes = trace.frame("runtime").query("kind == 'retake'")
        assert len(retakes) == told.exact
        assert retakes["since_ns"].isna().all()
    # With one P there is always one to take; with more, sysmon often lets it be.
    assert exact > 10
    assert matched / exact >= 0.99
    assert matched / inferred >= 0.99
    assert inside / matched >= 0.99


@pytest.mark.parametrize("version", ["1.19.8", "1.27.3"])
def test_without_probes_p_goes_the_same_way(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOMAXPROCS", "1")
    trace = capture(tmp_path / "t", "blockread", ["60"], version=version, probes="none")
    runtime = trace.frame("runtime")
    kinds = runtime["kind"].value_counts()
    retakes = runtime[runtime["kind"] == "retake"]
    assert set(retakes["reason"]) == {"sysmon"}
    assert set(retakes["p"]) == {0}
    assert (retakes["since_ns"] < retakes["ts_ns"]).all()
    # Whom it was taken from, and who took it: one thread, which is neither of those that block.
    blocks = trace.frame("block")
    assert set(retakes["target_tid"]) <= set(blocks["tid"])
    assert retakes["tid"].nunique() == 1
    assert not set(retakes["tid"]) & set(blocks["tid"])
    # One P: each retake is given on, at an exact moment, to an M that comes on a CPU with it.
    assert runtime.loc[runtime["kind"].isin(["startm", "acquirep"]), "since_ns"].isna().all()
    assert kinds["startm"] >= kinds["retake"]
    assert kinds["acquirep"] >= kinds["retake"]
    # And who blocked finds none on its return.
    slow = runtime[runtime["kind"] == "exit_slow"]
    assert set(slow["tid"]) <= set(retakes["target_tid"])
    assert len(slow) >= 0.9 * len(retakes)
