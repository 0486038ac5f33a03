"""What is shipped for Prometheus and Grafana names no metric that a watch does not serve."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prometheus import prometheus_tool
from tools import deploy

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy/prometheus/pretake.rules.yml"
DASHBOARD = ROOT / "deploy/grafana/pretake.json"
SELECTOR = re.compile(r"(?P<name>pretake_\w+)(?:\{(?P<labels>[^}]*)\})?")


def expressions() -> Iterator[str]:
    """Of both files, as whoever reads them gets them."""
    for line in RULES.read_text().splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "expr":
            yield json.loads(value)
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def recorded() -> set[str]:
    return set(re.findall(r"- record: (\S+)", RULES.read_text()))


def test_each_metric_and_label_that_is_named_is_served() -> None:
    served = deploy.names()
    found = [match for text in expressions() for match in SELECTOR.finditer(text)]
    assert len(found) > 10
    for match in found:
        labels = re.findall(r"(\w+)=", match["labels"] or "")
        assert set(labels) <= set(served[match["name"]]), match[0]


def test_each_recorded_series_that_is_named_is_recorded() -> None:
    named = {name for text in expressions() for name in re.findall(r"pretake:[\w:]+", text)}
    assert named == recorded()


def test_a_metric_or_label_that_is_not_there_is_refused() -> None:
    with pytest.raises(KeyError):
        deploy._series("pretake_watch_dumps")
    with pytest.raises(KeyError, match="has no label pod"):
        deploy._series("pretake_watch_dumps_total", pod="x")


@pytest.fixture
def promtool() -> Path:
    return prometheus_tool("promtool")


def test_prometheus_takes_the_rules(promtool: Path) -> None:
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


SCENE = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      # 3 of each 15 s some P was lost, and none ran in 0.3 s of them: 20 % and 2 %.
      - series: 'pretake_stall_any_seconds_total{{pid="7",comm="api",kind="some",bound="least"}}'
        values: '0+3.3x40'
      - series: 'pretake_stall_any_seconds_total{{pid="7",comm="api",kind="full",bound="least"}}'
        values: '0+0.3x40'
      - series: 'pretake_p_seconds_total{{pid="7",comm="api",state="running"}}'
        values: '0+15x40'
      - series: 'pretake_gomaxprocs{{pid="7",comm="api"}}'
        values: '4x40'
      - series: 'pretake_watch_dumps_total{{result="written"}}'
        values: '0x20 1x20'
    promql_expr_test:
      - expr: pretake:p_state:ratio
        eval_time: 5m
        exp_samples:
          - labels: 'pretake:p_state:ratio{{pid="7",comm="api",state="running"}}'
            value: 0.25
    alert_rule_test:
      - alertname: PretakeStalled
        eval_time: 5m
        exp_alerts:
          - exp_labels: {{severity: warning, pid: "7", comm: api, kind: some, bound: least}}
            exp_annotations:
              summary: In 22% of the time api had lost a P while work waited
      - alertname: PretakeStoodStill
        eval_time: 5m
      - alertname: PretakeDumpWritten
        eval_time: 4m
"""


def test_the_alarms_fire_as_they_say(promtool: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene.yml"
    scene.write_text(SCENE.format(rules=json.dumps(str(RULES))))
    done = subprocess.run([promtool, "test", "rules", scene], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
