"""Histograms that are kept in the kernel, on the command line and for Prometheus."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.go import toolchains
from tracer.errors import PretakeError
from tracer.live import Histogram, live, lower_ns

pytestmark = pytest.mark.kernel

PRETAKE = [sys.executable, "-m", "pretake", "live"]
READS = 200


def test_quantiles_of_a_histogram() -> None:
    assert [lower_ns(bucket) for bucket in (0, 40, 41, 44)] == [0, 1024, 1280, 2048]
    counts = np.zeros(256, np.int64)
    assert Histogram(counts).quantile(0.5) is None
    counts[[40, 44]] = 9, 1
    assert Histogram(counts).total == 10
    assert Histogram(counts).quantile(0.5) == (1024 + 1280) / 2
    assert Histogram(counts).quantile(0.99) == (2048 + 2560) / 2


@pytest.mark.go
def test_retakes_of_a_go_program_are_counted_by_system_call() -> None:
    binary = toolchains.build("blockread")
    done = subprocess.run(
        [*PRETAKE, "--json", "--period", "0.2", "--", str(binary), str(READS)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"GOMAXPROCS": "1"},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) >= 2
    counts = [sum(row["retakes"] for row in line["syscalls"]) for line in lines]
    assert counts == sorted(counts)
    # One P, two goroutines: a read that blocks long enough loses it, while the other one waits.
    [read] = [row for row in lines[-1]["syscalls"] if row["syscall"] == "read"]
    assert 10 < read["retakes"] <= READS
    assert 0 < read["harms"] <= read["retakes"]
    assert 0 < read["retake_ns"]["p50"] <= read["retake_ns"]["p99"]


@pytest.mark.go
def test_prometheus_is_served_on_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    binary = toolchains.build("blockread")
    watching = subprocess.Popen(
        [*PRETAKE, "--json", "--prometheus", str(port), "--", str(binary), "100000"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"GOMAXPROCS": "1"},
    )
    assert watching.stdout is not None
    # A line that tells of retakes: so they are there to be asked for.
    told = next(line for line in watching.stdout if '"read"' in line)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        page = answer.read().decode()
    watching.send_signal(2)
    watching.stdout.read()
    assert watching.wait() == 0
    watching.stdout.close()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    samples = families["pretake_retake_seconds"].samples
    reads = {s.labels["le"]: s.value for s in samples if s.labels["syscall"] == "read"}
    [row] = [row for row in json.loads(told)["syscalls"] if row["syscall"] == "read"]
    assert reads["+Inf"] >= row["retakes"] > 0
    assert list(reads.values()) == sorted(reads.values())


def test_what_cannot_be_watched_is_told() -> None:
    with pytest.raises(PretakeError, match="nothing to watch"), live():
        pass
    with pytest.raises(PretakeError, match="there is no process"), live(pid=2**22 - 1):
        pass
