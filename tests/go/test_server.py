"""A server with load, attached while it runs: no request is lost, and its blocking calls show."""

from __future__ import annotations

import http.client
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from analysis import load
from tests.go import toolchains
from tests.go.capture import until_events
from tracer.capture.options import CaptureOptions
from tracer.capture.record import record

CLIENTS = 4
EVENTS = 10_000
NR_READ = 0


class Client(threading.Thread):
    """Asks on one connection until it is told to stop, and counts what it got."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.stop = threading.Event()
        self.warm = threading.Event()
        self.asked = self.answered = 0

    def run(self) -> None:
        self.connection.connect()
        first = self.connection.sock
        while not self.stop.is_set():
            self.asked += 1
            self.connection.request("GET", f"/echo?n={self.asked}")
            answer = self.connection.getresponse()
            self.answered += answer.status == 200 and answer.read() == b"%d" % self.asked
            self.warm.set()
        # One connection all the time: none was broken off and made again.
        self.answered -= self.connection.sock is not first
        self.connection.close()


@contextmanager
def serving(version: str = toolchains.VERSIONS[-1]) -> Iterator[tuple[int, int]]:
    """A server with two Ps; yields its pid and port."""
    binary = toolchains.build("server", version)
    two = {**os.environ, "GOMAXPROCS": "2"}
    with subprocess.Popen([binary, "serve"], stdout=subprocess.PIPE, text=True, env=two) as server:
        assert server.stdout is not None
        try:
            yield server.pid, int(server.stdout.readline())
            assert server.poll() is None
        finally:
            server.kill()


def test_a_server_is_attached_while_it_serves(tmp_path: Path) -> None:
    with serving() as (pid, port):
        clients = [Client(port) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            assert client.warm.wait(60)
        before = sum(client.asked for client in clients)
        record(pid=pid, output=tmp_path / "t", progress=until_events(EVENTS))
        asked_meanwhile = sum(client.asked for client in clients) - before
        # It answers after the capture as it did before.
        for client in clients:
            client.warm.clear()
            assert client.warm.wait(60)
            client.stop.set()
        for client in clients:
            client.join(60)
            assert client.answered == client.asked
        assert asked_meanwhile > CLIENTS
    trace = load(tmp_path / "t")
    assert trace.manifest.target.version == f"go{toolchains.VERSIONS[-1]}"
    episodes = trace.episodes()
    retaken = episodes[(episodes["outcome"] == "retaken") & (episodes["nr"] == NR_READ)]
    assert not retaken.empty
    # A read of a connection never blocks, but an M can lose its CPU in it, and then its P: on a
    # busy machine such calls can be the first of the table.
    places = trace.places().set_index("stack_id")
    at = retaken.loc[~retaken["lost_overlap"], "stack_id"].map(places["stack"])
    slow = at[at.str.contains("main.readSlowly", regex=False)]
    assert not slow.empty
    assert slow.str.contains(";main.echo;main.readSlowly;", regex=False).all()
    sites = trace.sites()
    (row,) = sites[sites["site"] == "main.readSlowly"].itertuples()
    assert row.syscall == "read"
    assert row.episodes - row.kept >= len(slow)


@pytest.mark.parametrize("version", ["1.22.10", "1.25.5", toolchains.VERSIONS[-1]])
def test_no_p_is_held_by_two_at_a_time(tmp_path: Path, version: str) -> None:
    """An M that returns takes its old P from another in a call; to Go 1.25 no probe tells it."""
    assert version in toolchains.VERSIONS
    with serving(version) as (pid, port):
        clients = [Client(port) for _ in range(2 * CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            assert client.warm.wait(60)
        back = checked = 0
        # How often an M returns so hangs on who gets a CPU, and in one second it may be never.
        for number in range(20):
            record(pid=pid, output=tmp_path / f"{number}", options=CaptureOptions(seconds=1))
            trace = load(tmp_path / f"{number}")
            rules = trace.validate()
            assert rules.loc[rules["kind"] == "runtime", "broken"].sum() == 0, rules.to_string()
            checked += rules.set_index("rule").loc["p_at_one_m", "checked"]
            retaken = trace.episodes().query("outcome == 'retaken'")
            back += (retaken["reason"] == "exitsyscall").sum()
            if back and checked:
                break
        for client in clients:
            client.stop.set()
        for client in clients:
            client.join(60)
    assert back > 0
    assert checked > 0
