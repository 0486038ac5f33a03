"""CPU time for an answer of real servers, with a tool attached and without.

Three servers: the HTTP server of this folder, Debian's etcd under its own ``check perf``, and
Debian's caddy under wrk. Each runs under load without an end; a tool is attached to it and taken
away, a few rounds over, and a round's ratio is between what the server's own CPU time was for an
answer while the tool was there and just before it came.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.rivals import Costs, Tool, ToolFailedError, attached, in_turns
from tests.go import toolchains

__all__ = ["SERVERS", "Served", "compare_served", "etcd_command", "wait_for"]

_PROGRAMS = Path(__file__).parent / "programs"
_TICKS = os.sysconf("SC_CLK_TCK")
_READY_S = 20.0
_SETTLE_S = 2.0
_FEWEST_A_SECOND = 50
_TRIES = 20
_CADDYFILE = """{{
    admin 127.0.0.1:{admin}
    servers {{
        metrics
    }}
}}
http://127.0.0.1:{port} {{
    respond "{body}"
}}
"""


@dataclass(frozen=True)
class Served:
    """A server under load.

    Args:
        pid: the server.
        answers: how many it has given since it began.
    """

    pid: int
    answers: Callable[[], float]

    def cpu_s(self) -> float:
        """CPU time of the server so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def cost_s(self, seconds: float) -> float | None:
        """CPU time for an answer in the next seconds in which there is load: it may pause.

        None if it does not begin again.
        """
        for _ in range(_TRIES):
            cpu_s, answers = self.cpu_s(), self.answers()
            time.sleep(seconds)
            given = self.answers() - answers
            if given >= _FEWEST_A_SECOND * seconds:
                return (self.cpu_s() - cpu_s) / given
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _counter(url: str, name: str) -> float:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


def wait_for(url: str) -> None:
    """Until a server answers.

    Raises:
        TimeoutError: it does not within 20 s.
    """
    deadline_s = time.monotonic() + _READY_S
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=1).close()
            return
        if time.monotonic() > deadline_s:
            raise TimeoutError(url)
        time.sleep(0.1)


@contextlib.contextmanager
def _ended(*commands: list[str], output: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    with output.open("wb") as file:
        running = [
            subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
            for command in commands
        ]
    try:
        yield running
    finally:
        for process in running:
            # With what it has begun, as a shell in a loop has.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def http(folder: Path) -> Iterator[Served]:
    """The HTTP server of this folder, eight connections."""
    binary = str(toolchains.build("http", among=_PROGRAMS))
    with subprocess.Popen([binary, "serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        slices = folder / "slices"
        try:
            with _ended([binary, "load", address], output=slices):

                def answers() -> float:
                    lines = slices.read_text().splitlines()[:-1]
                    return sum(int(line.split()[2]) for line in lines)

                yield Served(server.pid, answers)
        finally:
            server.kill()


def etcd_command(program: str, folder: Path) -> tuple[list[str], str]:
    """How to start etcd by itself on free ports, with its data in a folder; and its address."""
    port, peer = _free_port(), _free_port()
    url = f"http://127.0.0.1:{port}"
    return [
        *(program, "--data-dir", str(folder / "data")),
        *("--listen-client-urls", url, "--advertise-client-urls", url),
        *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
        *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"),
        *("--initial-cluster", f"default=http://127.0.0.1:{peer}"),
    ], url


@contextlib.contextmanager
def etcd(folder: Path) -> Iterator[Served]:
    """Debian's etcd, under the load of its own ``check perf``, begun again whenever it ends."""
    command, url = etcd_command("etcd", folder)
    load = f"while :; do ETCDCTL_API=3 etcdctl --endpoints={url} check perf --load=l; done"
    with _ended(command, output=folder / "server") as (server,):
        wait_for(f"{url}/health")
        with _ended(["sh", "-c", load], output=folder / "load"):
            yield Served(
                server.pid,
                lambda: _counter(f"{url}/metrics", "etcd_server_proposals_applied_total"),
            )


@contextlib.contextmanager
def caddy(folder: Path) -> Iterator[Served]:
    """Debian's caddy under wrk."""
    port, admin = _free_port(), _free_port()
    config = folder / "Caddyfile"
    config.write_text(_CADDYFILE.format(port=port, admin=admin, body="x" * 1024))
    command = ["caddy", "run", "--config", str(config)]
    load = ["wrk", "-t1", "-c16", "-d100000s", f"http://127.0.0.1:{port}/"]
    with _ended(command, output=folder / "server") as (server,):
        wait_for(f"http://127.0.0.1:{port}/")
        metrics = f"http://127.0.0.1:{admin}/metrics"
        with _ended(load, output=folder / "load"):
            yield Served(server.pid, lambda: _counter(metrics, "caddy_http_requests_total"))


SERVERS = {
    "http": (http, ("true",)),
    "etcd": (etcd, ("etcd", "etcdctl")),
    "caddy": (caddy, ("caddy", "wrk")),
}
"""Each server, and the programs that must be installed for it."""


def compare_served(
    name: str, tools: Sequence[Tool], rounds: int, window_s: float
) -> dict[str, Costs]:
    """What each tool costs a server; empty where what the server needs is not installed.

    Raises:
        RuntimeError: the server has no load.
    """
    server, needs = SERVERS[name]
    absent = [program for program in needs if shutil.which(program) is None]
    if absent:
        print(f"left out: {name}: {', '.join(absent)} is not installed")
        return {}
    costs = {tool.name: Costs() for tool in tools}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:

        @contextlib.contextmanager
        def running() -> Iterator[Served]:
            with server(Path(tempfile.mkdtemp(dir=place))) as served:
                time.sleep(_SETTLE_S)
                yield served

        def measure(served: Served, tool: Tool) -> None:
            without_s = served.cost_s(window_s)
            if without_s is None:
                raise RuntimeError("too few answers, and no tool attached")
            with attached(tool, served.pid, Path(place)) as folder:
                with_s = served.cost_s(window_s)
            shutil.rmtree(folder)
            if with_s is None:
                raise ToolFailedError("the server gave too few answers beside it")
            costs[tool.name].cpu_ratios.append(with_s / without_s)
            print(
                f"  {name}: {tool.name}: {without_s * 1e6:.1f} us, {with_s / without_s:.3f} times"
            )

        failed = in_turns(running, tools, rounds, measure)
    for tool, cost in costs.items():
        cost.failed = failed.get(tool)
    return costs
