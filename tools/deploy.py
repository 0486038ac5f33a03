"""Makes the files of ``deploy/``: rules for Prometheus, and a dashboard for Grafana.

Each expression is built from the metrics that ``pretake watch`` serves
(:func:`pretake.recording_page.metric_families`), so that none names a metric, or a label, that is
not there. ``python -m tools.docs`` writes the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pretake.recording_page import metric_families

__all__ = ["dashboard", "names", "rules"]

_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count"),
}
_ALWAYS = ("job", "instance", "le")
"""Labels that Prometheus adds, or that a histogram has."""


def names() -> dict[str, tuple[str, ...]]:
    """The name of each series that a watch serves, and its labels."""
    return {
        f"{family.name}{suffix}": tuple(family._labelnames)  # type: ignore[attr-defined]
        for family in metric_families()
        for suffix in _SUFFIXES[family.type]
    }


def _series(name: str, **labels: str) -> str:
    """A series by name, and by values of its labels; KeyError where there is no such thing."""
    known = names()[name]
    for label in labels:
        if label not in known:
            raise KeyError(f"{name} has no label {label}")
    chosen = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{chosen}}}" if chosen else name


class _Rule(NamedTuple):
    """A rule: a recording one where ``alert`` is empty."""

    expr: str
    record: str = ""
    alert: str = ""
    wait: str = ""
    severity: str = ""
    summary: str = ""


_STALL_SOME, _STALL_FULL = "pretake:stall_some:ratio", "pretake:stall_full:ratio"
_STALL_CAUSE, _P_STATE = "pretake:stall_some_by_cause:ratio", "pretake:p_state:ratio"
_HOLD_P99 = "pretake:hold_seconds:p99"


def _recording() -> Iterator[_Rule]:
    for record, kind in ((_STALL_SOME, "some"), (_STALL_FULL, "full")):
        stall = _series("pretake_stall_any_seconds_total", kind=kind, bound="least")
        yield _Rule(f"rate({stall}[1m])", record=record)
    by_cause = _series("pretake_stall_seconds_total", kind="some", bound="least")
    yield _Rule(f"rate({by_cause}[1m])", record=_STALL_CAUSE)
    state, procs = _series("pretake_p_seconds_total"), _series("pretake_gomaxprocs")
    yield _Rule(
        f"rate({state}[1m]) / on (job, instance, pid, comm) group_left () {procs}",
        record=_P_STATE,
    )
    held = _series("pretake_hold_seconds_bucket")
    yield _Rule(
        f"histogram_quantile(0.99, sum by (job, instance, syscall, le) (rate({held}[5m])))",
        record=_HOLD_P99,
    )


def _alerts() -> Iterator[_Rule]:
    yield _Rule(
        f"{_STALL_SOME} > 0.2",
        alert="PretakeStalled",
        wait="1m",
        severity="warning",
        summary="In {{ $value | humanizePercentage }} of the time {{ $labels.comm }} had lost a P "
        "while work waited",
    )
    yield _Rule(
        f"{_STALL_FULL} > 0.05",
        alert="PretakeStoodStill",
        wait="1m",
        severity="critical",
        summary="In {{ $value | humanizePercentage }} of the time no P of {{ $labels.comm }} ran "
        "while work waited",
    )
    dumps = "pretake_watch_dumps_total"
    yield _Rule(
        f"increase({_series(dumps, result='written')}[10m]) > 0",
        alert="PretakeDumpWritten",
        severity="info",
        summary="A trace of the time before an event lies in the folder of the watch on "
        "{{ $labels.instance }}; its name is in the exemplar of pretake_watch_dumps_total",
    )
    yield _Rule(
        f"increase({_series(dumps, result='failed')}[10m]) > 0",
        alert="PretakeDumpFailed",
        severity="warning",
        summary="The watch on {{ $labels.instance }} could not write a dump; it has said why",
    )
    yield _Rule(
        f"{_series('pretake_watch_uploads_waiting')} > 0",
        alert="PretakeDumpNotUploaded",
        wait="30m",
        severity="warning",
        summary="The store that the watch on {{ $labels.instance }} sends dumps to does not take "
        "them; they are in its folder",
    )
    yield _Rule(
        f"rate({_series('pretake_watch_lost_records_total')}[5m]) > 0",
        alert="PretakeLosesRecords",
        wait="5m",
        severity="warning",
        summary="The watch on {{ $labels.instance }} loses records of {{ $labels.table }}: give "
        "it a larger --buffer",
    )
    yield _Rule(
        f"{_series('pretake_watch_processes')} == 0",
        alert="PretakeWatchesNothing",
        wait="5m",
        severity="warning",
        summary="No process that the watch on {{ $labels.instance }} is to watch runs",
    )


def rules() -> str:
    """Rules for recording and alarms, as Prometheus reads them."""

    def lines() -> Iterator[str]:
        yield "# Made by `make docs` from tools/deploy.py; edit that instead."
        yield "groups:"
        for group, made in (("pretake-recording", _recording()), ("pretake-alarms", _alerts())):
            yield f"  - name: {group}"
            yield "    rules:"
            for rule in made:
                name = f"alert: {rule.alert}" if rule.alert else f"record: {rule.record}"
                yield f"      - {name}"
                # JSON's strings are YAML's.
                yield f"        expr: {json.dumps(rule.expr)}"
                if rule.wait:
                    yield f"        for: {rule.wait}"
                if rule.alert:
                    yield f"        labels: {{severity: {rule.severity}}}"
                    yield "        annotations:"
                    yield f"          summary: {json.dumps(rule.summary)}"

    return "\n".join(lines()) + "\n"


def _panel(number: int, title: str, unit: str, queries: Mapping[str, str]) -> dict[str, Any]:
    """One picture of a dashboard: queries by legend."""
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": expr, "legendFormat": legend, "exemplar": True}
            for at, (legend, expr) in enumerate(queries.items())
        ],
    }


def dashboard() -> str:
    """A dashboard for Grafana, to be imported; it uses the recorded series of :func:`rules`."""
    who = "{{comm}} ({{pid}})"
    written = _series("pretake_watch_dumps_total")
    panels = (
        ("Time in which a P was lost while work waited", "percentunit", {who: _STALL_SOME}),
        ("Time in which besides no P ran", "percentunit", {who: _STALL_FULL}),
        ("The same by cause", "percentunit", {"{{comm}} {{cause}}": _STALL_CAUSE}),
        ("P time by state", "percentunit", {"{{comm}} {{state}}": _P_STATE}),
        ("How long Ps were held, 99th percentile", "s", {"{{syscall}}": _HOLD_P99}),
        ("Triggers, by what became of them", "short", {"{{result}}": f"increase({written}[5m])"}),
        (
            "Rules that held",
            "short",
            {"{{rule}}": f"increase({_series('pretake_watch_alarms_total')}[5m])"},
        ),
        (
            "Uploads, and dumps that wait for one",
            "short",
            {
                "{{result}}": f"increase({_series('pretake_watch_uploads_total')}[5m])",
                "waiting": _series("pretake_watch_uploads_waiting"),
            },
        ),
        (
            "Records, and those lost",
            "cps",
            {
                "records": f"rate({_series('pretake_watch_records_total')}[1m])",
                "lost {{table}}": f"rate({_series('pretake_watch_lost_records_total')}[1m])",
            },
        ),
        ("The window reaches back", "s", {"seconds": _series("pretake_watch_window_seconds")}),
        (
            "Memory of the window, and disk of the dumps",
            "bytes",
            {
                "window": _series("pretake_watch_window_bytes"),
                "dumps": _series("pretake_watch_disk_bytes"),
            },
        ),
    )
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"}
    made = {
        "title": "pretake: P time of Go programs",
        "uid": "pretake",
        "schemaVersion": 38,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": [_panel(number, *panel) for number, panel in enumerate(panels)],
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"
