"""From an alarm to the line: a real Prometheus scrapes a watch of a real server that stalls."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.go.test_pprof import said
from tests.go.test_watch import (
    RULE,
    assert_dump_names_the_line,
    assert_it_names_the_call,
    free_port,
    server,
    stall,
    watching,
)
from tests.kernel.started import Started
from tests.prometheus import prometheus_tool

RULES = Path(__file__).parents[2] / "deploy/prometheus/pretake.rules.yml"
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: pretake
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Prometheus:
    """A running one, asked by its HTTP interface."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, what: str, **parameters: object) -> Any:  # noqa: ANN401 - parsed JSON
        url = f"{self.url}/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url) as answer:
            told = json.load(answer)
        assert told["status"] == "success"
        return told["data"]

    def value(self, expression: str) -> float | None:
        """Of an expression that has one; None where it has no series yet."""
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def wait_for_scrape(self, expression: str) -> None:
        while not self.value(expression):
            os.sched_yield()

    def wait_for_alarm(self, name: str) -> dict[str, Any]:
        while True:
            for alarm in self.ask("alerts")["alerts"]:
                if alarm["labels"]["alertname"] == name and alarm["state"] == "firing":
                    return dict(alarm)
            os.sched_yield()


@contextlib.contextmanager
def prometheus(folder: Path, scraped: int) -> Iterator[Prometheus]:
    """One that scrapes a port of this machine each second, with the rules that are shipped."""
    config, port = folder / "prometheus.yml", free_port()
    config.write_text(CONFIG.format(rules=json.dumps(str(RULES)), port=scraped))
    command = [
        prometheus_tool("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=error",
    ]
    with Started(command) as running:
        asked = Prometheus(port)
        while running.poll() is None:
            try:
                asked.ask("alerts")
                break
            except urllib.error.URLError:
                os.sched_yield()
        yield asked
        assert running.poll() is None
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(60)
        running.kill()


def test_an_alarm_names_the_dump_and_the_dump_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPROF_TMPDIR", str(tmp_path))
    port, fifo, folder = free_port(), tmp_path / "fifo", tmp_path / "dumps"
    begin_s = time.time()
    with server(fifo) as (pid, serves):
        watch_it = ["--pid", pid, "-o", folder, "--when", RULE, "--seconds", 300, "--after", 1]
        with (
            watching(*watch_it, "--listen", f"127.0.0.1:{port}"),
            prometheus(tmp_path, port) as asked,
        ):
            # An increase is seen from what was before.
            asked.wait_for_scrape('pretake_watch_dumps_total{result="written"} == bool 0')
            stall(pid, serves, fifo)
            alarm = asked.wait_for_alarm("PretakeDumpWritten")
            scraped = asked.value("min_over_time(up[10m])")
            exemplars = asked.ask(
                "query_exemplars",
                query="pretake_watch_dumps_total",
                start=begin_s,
                end=time.time() + 1,
            )
            url = f"http://127.0.0.1:{port}/debug/pprof/ptime?seconds=300"
            top = said("1.27.3", "-top", "-cum", "-sample_index=hold", url)
    assert alarm["labels"]["severity"] == "info"
    # No scrape failed.
    assert scraped == 1
    ((name,),) = [{e["labels"]["dump"] for e in found["exemplars"]} for found in exemplars]
    assert [entry.name for entry in folder.iterdir()] == [name]
    assert_it_names_the_call(top)
    assert_dump_names_the_line(folder / name)
