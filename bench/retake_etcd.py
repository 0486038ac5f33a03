"""Real etcd in every way to retake P: a part of :mod:`bench.retake_go`.

Debian's etcd is built with the overlay and is under the load of its own ``check perf`` (``l``: 500
clients write as fast as they can, for a minute). Beside it one client writes a key every 5 ms, and
its waits are p50 and p99. In the last seconds etcd is captured for the P-retake latency.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from analysis import load
from bench.go.retake.real import build_etcd
from bench.served import etcd_command, wait_for
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record

__all__ = ["NAME", "measure"]

NAME = "etcd-1p"
"""As the figures have it: one P, where it shows that one is lost."""
_ALONE_S, _CAPTURED_S = 50.0, 4.0
_EVERY_S = 0.005
_PUT = json.dumps({"key": "cHJvYmU=", "value": "eA=="})


def measure(version: str, ways: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The figures of each way, one after the other; empty where etcdctl is not installed.

    Args:
        version: of Go.
        ways: what ``GODEBUG=retake=`` gets.
    """
    if shutil.which("etcdctl") is None:
        print("left out: etcd: etcdctl is not installed (Debian's etcd-client has it)")
        return {}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        program = Path(place, "etcd")
        build_etcd(version, program)
        return {way: _one(program, way, Path(tempfile.mkdtemp(dir=place))) for way in ways}


def _one(program: Path, way: str, folder: Path) -> dict[str, Any]:
    command, url = etcd_command(str(program), folder)
    environment = os.environ | {"GODEBUG": f"retake={way}", "GOMAXPROCS": "1"}
    check = ["etcdctl", f"--endpoints={url}", "check", "perf", "--load=l"]
    with (
        (folder / "server").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            wait_for(f"{url}/health")
            with subprocess.Popen(
                check,
                env=os.environ | {"ETCDCTL_API": "3"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as load_:
                waits = sorted(_waits_ns(url))
                trace = _captured(server.pid, folder)
                said, _ = load_.communicate()
        finally:
            server.terminate()
            # The kernel's counts come with the end of the process only.
            _, status, used = os.wait4(server.pid, 0)
            server.returncode = os.waitstatus_to_exitcode(status)
    puts_per_s = float(_found(r"hroughput (?:is|too low:) (\d+) writes/s", said))
    puts = puts_per_s * 60
    cpu_s = used.ru_utime + used.ru_stime
    return {
        "p50_ns": int(statistics.median(waits)),
        "p99_ns": waits[len(waits) * 99 // 100],
        "ops_per_s": puts_per_s,
        "cpu_s": cpu_s,
        "cpu_us_per_op": cpu_s / puts * 1e6,
        "wakeups_per_op": used.ru_nvcsw / puts,
        "slowest_s": float(_found(r"lowest request took(?: too long:)? ([\d.]+)s", said)),
        "reader": None,
        **trace,
    }


def _found(pattern: str, said: str) -> str:
    found = re.search(pattern, said)
    if found is None:
        raise RuntimeError(f"etcdctl check perf said: {said[-500:]}")
    return found[1]


def _waits_ns(url: str) -> list[int]:
    """How long each of one client's writes took."""
    waits = []
    client = http.client.HTTPConnection(urlsplit(url).netloc)
    end_s = time.monotonic() + _ALONE_S
    while time.monotonic() < end_s:
        begin_ns = time.perf_counter_ns()
        client.request("POST", "/v3/kv/put", _PUT)
        answer = client.getresponse()
        answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"etcd answered {answer.status}")
        waits.append(time.perf_counter_ns() - begin_ns)
        time.sleep(_EVERY_S)
    client.close()
    return waits


def _captured(pid: int, folder: Path) -> dict[str, Any]:
    path = record(
        output=folder / "t.pretake", pid=pid, options=CaptureOptions(seconds=_CAPTURED_S)
    )
    trace = load(path)
    episodes = trace.episodes()
    return {
        "retake_p50_ns": trace.summary()["retake_ns"]["p50"],
        "needless": int((episodes["class"] == "needless").sum()),
        "episodes": len(episodes),
    }
