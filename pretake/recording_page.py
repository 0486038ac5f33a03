"""What ``pretake watch --listen`` answers: metrics, a profile, and the wish for a dump.

curl http://127.0.0.1:9110/metrics
curl -X POST http://127.0.0.1:9110/dump
go tool pprof http://127.0.0.1:9110/debug/pprof/ptime?seconds=30
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pretake.prometheus import Stalls, buckets
from tracer.errors import PretakeError
from tracer.trace.containers import Container

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from pretake.recording import Recording

__all__ = ["Recorded", "application", "metric_families", "metrics_alone"]

_SECONDS = 30.0
_TEXT = "text/plain; charset=utf-8"
_INDEX = """pretake watch
GET  /metrics                         for Prometheus
GET  /debug/pprof/ptime?seconds=30    the last seconds, for go tool pprof
POST /dump                            write a trace of the last seconds and the next ones
"""


def metric_families() -> list[Metric]:
    """Every metric that a watch serves, without samples: the list that others are made from."""
    return [*Stalls(lambda: ()).describe(), *vars(_Families()).values()]


class Recorded(Collector):
    """What a watch has seen, lost and written.

    Args:
        recording: is asked at each question.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def describe(self) -> Iterator[Metric]:
        """What there would be."""
        yield from vars(_Families()).values()

    def collect(self) -> Iterator[Metric]:
        """What there is now."""
        recording, told = self._recording, _Families()
        watched, recorder = recording.watched, recording.recorder
        for syscall, counts in list(recording.holds.items()):
            told.holds.add_metric([syscall], buckets(counts), sum_value=None)
        told.records.add_metric([], watched.events())
        for table, count in watched.losses().items():
            told.lost.add_metric([table], count)
        last = Exemplar({"dump": recorder.last}, 1.0) if recorder.last is not None else None
        for result, count in recorder.counts.items():
            exemplar = last if result == "written" else None
            told.dumps.add_metric([result], count, exemplar=exemplar)
        for rule, count in recording.alarms.items():
            told.alarms.add_metric([rule], count, exemplar=last if count else None)
        told.removed.add_metric([], recording.dumps.removed)
        if recording.uploads is not None:
            for result, count in recording.uploads.counts.items():
                told.uploads.add_metric([result], count)
            told.waiting.add_metric([], recording.uploads.waiting)
        told.disk.add_metric([], recording.dumps.bytes())
        told.window.add_metric([], (watched.now_ns - watched.window.begin_ns) / 1e9)
        told.memory.add_metric([], watched.window.nbytes)
        pids = watched.targets.pids
        told.processes.add_metric([], len(pids))
        for pid in pids:
            where = watched.place_of(pid)
            labels = [str(pid), watched.comm_of(pid) or "", *(x or "" for x in where)]
            told.info.add_metric(labels, 1)
        told.unread.add_metric([], len(watched.targets.unread))
        told.ended.add_metric([], watched.targets.ended)
        yield from vars(told).values()


class _Families:
    """Each metric of a watch's own, without samples."""

    def __init__(self) -> None:
        self.holds = HistogramMetricFamily(
            "pretake_hold_seconds",
            "How long blocked threads kept their P, by system call",
            labels=["syscall"],
        )
        self.records = CounterMetricFamily("pretake_watch_records", "Records that the kernel sent")
        self.lost = CounterMetricFamily(
            "pretake_watch_lost_records", "Records that found no room in a ring", labels=["table"]
        )
        self.dumps = CounterMetricFamily(
            "pretake_watch_dumps",
            "Triggers by what became of them: a dump that was written, or that failed, a dump "
            "that another one had begun (joined), or none, because of --dumps-per-hour (refused)",
            labels=["result"],
        )
        self.alarms = CounterMetricFamily(
            "pretake_watch_alarms", "How often a rule held", labels=["rule"]
        )
        self.removed = CounterMetricFamily(
            "pretake_watch_dumps_removed", "Dumps that had to go because of --disk"
        )
        self.uploads = CounterMetricFamily(
            "pretake_watch_uploads",
            "Dumps that the store of --to has (uploaded), attempts that it did not take (failed), "
            "and dumps that are not tried again (dropped)",
            labels=["result"],
        )
        self.waiting = GaugeMetricFamily(
            "pretake_watch_uploads_waiting", "Dumps that the store of --to does not have yet"
        )
        self.disk = GaugeMetricFamily(
            "pretake_watch_disk_bytes", "What all dumps take on the disk"
        )
        self.window = GaugeMetricFamily(
            "pretake_watch_window_seconds", "How far the window reaches back from now"
        )
        self.memory = GaugeMetricFamily(
            "pretake_watch_window_bytes", "Memory of the window's records"
        )
        self.processes = GaugeMetricFamily("pretake_watch_processes", "Processes that are watched")
        self.info = GaugeMetricFamily(
            "pretake_watch_process_info",
            "1 for each process that is watched; empty labels for what it is not in",
            labels=("pid", "comm", *Container._fields),
        )
        self.unread = GaugeMetricFamily(
            "pretake_watch_processes_unread",
            "Processes of which --go does not know whether they are Go programs",
        )
        self.ended = CounterMetricFamily(
            "pretake_watch_processes_ended", "Watched processes that have ended"
        )


def metrics_alone(recording: Recording) -> WSGIApplication:
    """What answers to whoever may read metrics, and nothing else.

    Args:
        recording: is asked.
    """
    registry = CollectorRegistry()
    registry.register(Stalls(recording.pressure))
    registry.register(Recorded(recording))
    metrics: WSGIApplication = make_wsgi_app(registry)
    return metrics


def application(recording: Recording) -> WSGIApplication:
    """What answers.

    Args:
        recording: is asked.
    """
    metrics = metrics_alone(recording)

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", "/"), environ["REQUEST_METHOD"]
        if path not in _ROUTES:
            return _said(start, "404 Not Found", "there is no such page\n")
        if method != _ROUTES[path]:
            return _said(start, "405 Method Not Allowed", f"use {_ROUTES[path]}\n")
        # A page in a browser on this machine may send a POST, too, and says where it is from.
        if "HTTP_ORIGIN" in environ:
            return _said(start, "403 Forbidden", "not from a web page\n")
        if path == "/metrics":
            return metrics(environ, start)
        try:
            if path == "/dump":
                return _dump(recording, start)
            if path == "/debug/pprof/ptime":
                return _profile(recording, environ, start)
        except PretakeError as error:
            return _said(start, "503 Service Unavailable", f"{error}\n")
        except TimeoutError:
            return _said(start, "503 Service Unavailable", "the watch has no time: ask again\n")
        return _said(start, "200 OK", _INDEX)

    return answer


_ROUTES = {"/": "GET", "/metrics": "GET", "/debug/pprof/ptime": "GET", "/dump": "POST"}


def _dump(recording: Recording, start: StartResponse) -> list[bytes]:
    decision = recording.dump("POST /dump")
    told = {"dump": decision.name, "joined": decision.joined, "refused": decision.refused or None}
    status = "202 Accepted" if decision.name is not None else "429 Too Many Requests"
    return _said(start, status, json.dumps(told) + "\n", "application/json")


def _profile(recording: Recording, environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
    given = parse_qs(environ.get("QUERY_STRING", "")).get("seconds", [str(_SECONDS)])[-1]
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 3600:
        return _said(start, "400 Bad Request", "seconds takes a number above 0\n")
    profile = recording.profile(seconds)
    headers = [
        ("Content-Type", "application/octet-stream"),
        ("Content-Disposition", 'attachment; filename="ptime.pb.gz"'),
        ("Content-Length", str(len(profile))),
    ]
    start("200 OK", headers)
    return [profile]


def _said(start: StartResponse, status: str, text: str, kind: str = _TEXT) -> list[bytes]:
    body = text.encode()
    start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
