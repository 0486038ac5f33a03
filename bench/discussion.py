"""Each idea of the discussion of Go issue 29734 beside its figure: ``python -m bench.discussion``.

Everything is measured in one run of about two minutes, on the reference runtime (here and on the
simulated host) and, where Go can be built, on gVisor's pattern in real Go. ``--document`` writes
docs/the-discussion.md anew. Rows whose figure could not be had say why. Compare ratios: absolute
times depend on the machine and on what else it does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from analysis.units import duration_text as time_text
from bench import results
from bench.go_proposal import PROGRAMS, alone
from bench.readiness import wake_ns
from reference_runtime import (
    BLOCK,
    Channel,
    Runtime,
    Site,
    WaitGroup,
    go,
    gosched,
    spin,
    syscall,
)
from reference_runtime.current import COMPILED
from reference_runtime.goroutines import current_host
from reference_runtime.policies.sched_out import SchedOutPolicy
from reference_runtime.sim.costs import Costs
from reference_runtime.sim.sim_host import SimHost
from reference_runtime.workloads import make_workload, run_workload
from tests.go import toolchains
from tracer.errors import PretakeError
from tracer.kernel.perf_events import SwitchEvent, decode_switches

PAGE = Path(__file__).parent.parent / "docs" / "the-discussion.md"
ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """One idea: what the discussion says, what was measured, and what that means."""

    idea: str
    said: str
    here: str
    go: str
    means: str


class Deaf(SchedOutPolicy):
    """``sched_out`` whose events never come."""

    name = "deaf"

    def m_started(self, m: object) -> None:
        """No event for this thread."""


def echo(policy: str, **parameters: Any) -> float:  # noqa: ANN401  whatever the workload takes
    """Median round trip, ns, of the rounds' median."""
    told: list[float] = []
    for _ in range(ROUNDS):
        result: Any = run_workload("echo", policy=policy, seconds=0.7, **parameters)
        told.append(result["round_trip_ns"]["p50"])
    return median(told)


def simulated(workload: str, policy: Any, procs: int = 1, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401
    """A workload on the simulated host; of the parameters ``costs`` is the machine's."""
    costs = parameters.pop("costs", Costs())
    runtime = Runtime(procs, policy, host=SimHost(2, costs))
    result: Any = runtime.run(make_workload(workload, **parameters).main)
    return {
        "result": result,
        "record": runtime.record,
        "clock_ns": int(runtime.host.nanotime()),
    }


def ratio(part: float, whole: float) -> str:
    return f"{part / whole:.2f}"


def overlay(way: str) -> str:
    """A way of retaking in real Go: its round trip against sysmon's, where that was measured."""
    file = results.FOLDER / "retake_go.json"
    if not file.exists():
        return "–"
    told = json.loads(file.read_text())
    ratios = [
        f"{row['netstack-1p'][way]['p50_ns'] / row['netstack-1p']['sysmon']['p50_ns']:.2f} "
        f"(Go {version})"
        for version, row in told.items()
        if version != "machine"
    ]
    return f"[another run](retake-in-go.md): {', '.join(ratios)}"


# Each function below makes one or more rows.


def hint(go_times: dict[tuple[int, str], float]) -> Iterator[Row]:
    """The call that gives its P away, and the state of the thread."""
    times = {policy: echo(policy) for policy in ("sysmon", "block", "thread_state", "sched_out")}
    one = "–"
    if go_times:
        normal, block = go_times[1, "normal"], go_times[1, "block"]
        one = f"{time_text(round(normal))} → {time_text(round(block))} ({ratio(block, normal)})"
    base = times["sysmon"]
    yield Row(
        "A call that gives its P away before it blocks (`entersyscallblock`)",
        "round trip 182 → 112 µs (0.62)",
        f"{time_text(round(base))} → {time_text(round(times['block']))} "
        f"({ratio(times['block'], base)})",
        one,
        "larger here than there: with one P nearly all of the round trip is the wait for sysmon",
    )
    yield Row(
        "sysmon asks for the thread's state and takes P at once",
        "half of the gain",
        f"{time_text(round(times['thread_state']))} ({ratio(times['thread_state'], base)})",
        overlay("threadstate"),
        "one look of two is saved",
    )
    yield Row(
        "The kernel tells of the block (perf events on the program's own threads)",
        "an idea",
        f"{time_text(round(times['sched_out']))} ({ratio(times['sched_out'], base)})",
        overlay("schedout"),
        "no hint is needed; two threads wake one after the other",
    )


def neighbour(go_times: dict[tuple[int, str], float]) -> Iterator[Row]:
    """The hint beside a goroutine that is always busy, and what that one gets done."""
    ops: dict[str, list[float]] = {"sysmon": [], "block": []}
    done: dict[str, list[float]] = {"sysmon": [], "block": []}
    for _ in range(ROUNDS):
        for policy in ops:
            result: Any = run_workload("echo", policy=policy, procs=2, seconds=0.7, busy=1)
            ops[policy].append(result["ops_per_s"])
            done[policy].append(result["busy_slices"] / result["wall_s"])
    one = "–"
    if go_times:
        one = f"{ratio(go_times[2, 'normal'], go_times[2, 'block'])} times the round trips"
    yield Row(
        "The same with two Ps, beside a busy goroutine",
        "–",
        f"{ratio(median(ops['block']), median(ops['sysmon']))} times the round trips; the busy "
        f"one gets {ratio(median(done['block']), median(done['sysmon']))} times as much done",
        one,
        "against `sysmon`, under which the pair keeps both Ps from call to call and the busy one "
        "waits for the end of a time slice; with the hint it runs at each wait",
    )


def window(_: dict[tuple[int, str], float]) -> Iterator[Row]:
    """The lengths of calls at which each way wins, simulated."""
    cells = []
    for length_us in (1, 10, 30, 100, 300, 1_000):
        ops = {
            policy: 1e9 / called_ns(policy, length_us * 1_000)
            for policy in ("sysmon", "block", "raw", "sched_out")
        }
        best = max(ops, key=lambda policy: ops[policy])
        others = ", ".join(
            f"{policy} {ops[policy] / ops[best]:.2f}" for policy in ops if policy != best
        )
        cells.append(f"{length_us} µs: **{best}** ({others})")
    yield Row(
        "The lengths of calls for which a hint pays",
        "calls that surely block",
        "<br>".join(cells),
        "–",
        "throughput of four workers, each 5 µs of work and such a call in turns, beside a busy "
        "goroutine, one P, simulated, against the best",
    )


def called_ns(policy: str, block_ns: int) -> int:
    """How long four workers need for 100 calls each that block for so long, simulated."""
    host = SimHost(2)

    async def main() -> None:
        done = WaitGroup(4)

        async def calls() -> None:
            for _ in range(100):
                await spin(5_000)
                await syscall(Site("call", BLOCK), host.call, (0, block_ns))
            done.done()

        async def computes() -> None:
            while True:
                await spin(20_000)
                await gosched()

        go(computes())
        for _ in range(4):
            go(calls())
        await done.wait()

    begin_ns = int(host.nanotime())
    Runtime(1, policy, host=host).run(main)
    return int(host.nanotime()) - begin_ns


def kvm(_: dict[tuple[int, str], float]) -> Iterator[Row]:
    """Dearer system calls, simulated."""
    cells = []
    for scale in (1.0, 2.0, 3.0):
        costs = Costs().scaled(scale)
        times = {
            policy: simulated("echo", policy, rounds=300, costs=costs)["result"]["round_trip_ns"][
                "p50"
            ]
            for policy in ("sysmon", "block")
        }
        cells.append(f"× {scale:g}: {ratio(times['block'], times['sysmon'])}")
    yield Row(
        "System calls under KVM",
        "2 to 3 times dearer",
        ", ".join(cells),
        "–",
        "round trip of `block` against `sysmon`, simulated: the price of a call hardly matters",
    )


def backup(_: dict[tuple[int, str], float]) -> Iterator[Row]:
    """A net under the events, and what happens without events, simulated."""
    cells = []
    for net_ms in (5, 20, 100):
        told = simulated("echo", Deaf(net_ms * 1_000_000), rounds=20)
        cells.append(f"{net_ms} ms: {time_text(told['result']['round_trip_ns']['p50'])}")
    heard = simulated("echo", "sched_out", rounds=200)
    yield Row(
        "A backup: a call that no event told of loses its P after 100 ms",
        "100 ms",
        f"round trip {time_text(heard['result']['round_trip_ns']['p50'])} with events; "
        f"without any: {', '.join(cells)}",
        "–",
        "`--backup MS`; without events each wait for a P lasts one to two backups (simulated)",
    )


def whose(_: dict[tuple[int, str], float]) -> Iterator[Row]:
    """Whether a record of a switch names the other thread."""
    cells = []
    for name, tid, cpu in (("own thread", 0, -1), ("whole machine", -1, 0)):
        event = None
        try:
            event = SwitchEvent(tid, cpu, pages=64)
            for _round in range(20):
                os.sched_yield()
                with tempfile.TemporaryFile() as file:
                    file.write(b"x")
                    os.fsync(file.fileno())
            rows, _lost = decode_switches(event.read())
            named = int((rows["other_tid"] >= 0).sum())
            cells.append(f"{name}: {named} of {len(rows)} records name it")
        except PretakeError as refused:
            cells.append(f"{name}: {refused}")
        finally:
            if event is not None:
                event.close()
    yield Row(
        "The record of a switch names the thread that blocked",
        "only a machine-wide event does",
        "; ".join(cells),
        "–",
        "as said; with one event for each thread the ring that has the record tells it",
    )


def poller(_: dict[tuple[int, str], float]) -> Iterator[Row]:
    """A thread for each descriptor, or the poller; and without the poller's look."""
    cells = []
    for like in ("go1.21", "gvisor"):
        threads = echo("block", like=like)
        polled = echo("block", like=like, poller=True)
        cells.append(f"`{like}`: {time_text(round(polled))} against {time_text(round(threads))}")
    yield Row(
        "One thread for each descriptor, against the network poller",
        "threads are faster",
        "; ".join(cells),
        "–",
        "one connection, round trip over the poller against threads with `block`, by Go's rules. "
        "The poller wins: with one P it readies the goroutine on the same thread; else each "
        "message wakes two",
    )


def skipped(_: dict[tuple[int, str], float]) -> Iterator[Row]:
    """The look at the network that gVisor left out."""
    ops: dict[str, list[float]] = {"go1.21": [], "gvisor": []}
    for _round in range(ROUNDS):
        for like in ops:
            result: Any = run_workload("fanout", policy="sysmon", seconds=0.7, like=like)
            ops[like].append(result["ops_per_s"])
    polled: dict[str, list[float]] = {"go1.21": [], "gvisor": []}
    for _round in range(ROUNDS):
        for like in polled:
            result = run_workload("echo", policy="block", seconds=0.7, like=like, poller=True)
            polled[like].append(result["ops_per_s"])
    yield Row(
        "netpoll is left out of the search for work",
        "5 % faster, of 10 % of the cycles",
        f"{ratio(median(ops['gvisor']), median(ops['go1.21']))} of the throughput where nobody "
        f"waits for a descriptor, {ratio(median(polled['gvisor']), median(polled['go1.21']))} "
        "where all do",
        "–",
        "the look is made only where a goroutine waits for a descriptor",
    )


def readiness(_: dict[tuple[int, str], float]) -> Iterator[Row]:
    """Readiness without a buffer, told to a goroutine or to a channel."""
    many = 15_000
    cells = []
    for way in ("buffer", "goroutine", "channel"):
        # A process for each: memory that one has given back would serve the next.
        code = f"from bench.readiness import bytes_of; print(bytes_of({way!r}, {many}))"
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        cells.append(f"{way}: {float(done.stdout):,.0f} B")
    yield Row(
        "Idle connections wait without a buffer",
        "a read of nothing, or of one byte; readiness told to a channel",
        "; ".join(cells),
        "–",
        f"a connection, of {many:,}: a goroutine with a buffer of 4 KiB, one without "
        "(`wait_readable`), and none (`notify_readable`). A read of nothing never waits on Linux",
    )


def sources(_: dict[tuple[int, str], float]) -> Iterator[Row]:
    """One of several sources: netstack's sleeper, and a select."""
    cells = []
    for many in (2, 64):
        for how in ("sleeper", "select"):
            cells.append(f"{how} of {many}: {wake_ns(how, many):,.0f} ns")
    yield Row(
        "netstack's package sleep: wake one goroutine by one of several sources",
        "its own package",
        "; ".join(cells),
        "–",
        "a wake-up and the wait for the next, one P; a select queues an object for each source",
    )


def upcall(_: dict[tuple[int, str], float]) -> Iterator[Row]:
    """A kernel that calls the scheduler, simulated."""
    told = {
        policy: simulated("echo", policy, rounds=300)["result"]["round_trip_ns"]["p50"]
        for policy in ("sysmon", "sched_out", "ums", "block")
    }
    yield Row(
        "User-mode scheduling: the kernel calls the scheduler (UMS, switchto)",
        "named as an idea",
        ", ".join(f"{name} {ratio(ns, told['sysmon'])}" for name, ns in told.items()),
        "–",
        "round trip against `sysmon`, simulated: Linux has none of them",
    )


def runnext(_: dict[tuple[int, str], float]) -> Iterator[Row]:
    """A hundred pairs over channels, with and without runnext."""

    async def main() -> float:
        pairs, rounds = 100, 100
        done = WaitGroup(pairs)

        async def pair() -> None:
            there, back = Channel(), Channel()

            async def answers() -> None:
                async for value in there:
                    await back.send(value)

            go(answers())
            for _ in range(rounds):
                await there.send(0)
                await back.recv()
            there.close()
            took_ns.append(current_host().nanotime() - begin_ns)
            done.done()

        took_ns: list[int] = []
        begin_ns = current_host().nanotime()
        for _ in range(pairs):
            go(pair())
        await done.wait()
        return min(took_ns) / rounds

    cells = []
    for like in ("lean", "go1.21"):
        told = [Runtime(1, like=like).run(main) for _ in range(ROUNDS)]
        first_ns = median([ns for ns in told if isinstance(ns, float)])
        cells.append(f"`{like}` {time_text(round(first_ns))}")
    yield Row(
        "A goroutine that is readied runs next, in the same time slice (runnext)",
        "(Go has it)",
        ", ".join(cells),
        "–",
        "a round trip of the first of 100 pairs over channels that is ready, one P",
    )


IDEAS: tuple[Callable[[dict[tuple[int, str], float]], Iterator[Row]], ...] = (
    *(
        hint,
        neighbour,
        window,
        upcall,
        backup,
        whose,
        poller,
        skipped,
        readiness,
        sources,
        kvm,
        runnext,
    ),
)
HEAD = """\
# The ideas of the discussion, each beside its figure

The discussion is that of Go issue 29734, see [the design](design.md). For example, it says that a
round trip took 112 µs instead of 182 µs with a call that gives its P away. The first row has what
the same change makes here.

`python -m bench.discussion --document` measures every row in one run, and writes this page again.
Compare ratios. *Simulated* figures are the same on every machine. Of real Go the first row is from
the same run; *another run* says where a figure is from.
"""
NOT_MEASURED = (
    "`usleep` in the search for work, 8 → 2 % of the cycles: here it is the 3 µs before a thief "
    "takes a runnext, and no row tells its share.",
    "−2 in the register map, by which the collector would lose an object: there is none here.",
    "A policy `upcall` on a real kernel (a kfunc at `sched_switch` that wakes a parked M).",
)


def real_go() -> dict[tuple[int, str], float]:
    """Round trips of gVisor's pattern, ns, by GOMAXPROCS and call; empty where Go is not here."""
    try:
        binary = toolchains.build("netstack", among=PROGRAMS)
    except LookupError:
        return {}
    told = {}
    with tempfile.TemporaryDirectory() as folder:
        for procs, busy in ((1, "0"), (2, "1")):
            for how in ("normal", "block"):
                environment = os.environ | {"GOMAXPROCS": str(procs)}
                runs = [
                    alone([str(binary), how, "2000", busy], environment, Path(folder))["p50_ns"]
                    for _ in range(ROUNDS)
                ]
                told[procs, how] = median(runs)
    return told


def document(rows: list[Row], load: float) -> str:
    """The page."""
    cells = [(row.idea, row.said, row.here, row.go, row.means) for row in rows]
    head = ("idea", "the discussion says", "here: reference runtime", "real Go", "which means")
    table = ["| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *cells)]
    machine = results.machine()
    return "\n".join(
        [
            HEAD,
            f"Measured on {machine['cpus']} CPUs, Linux {machine['kernel']}, Python "
            f"{platform.python_version()}, at a load of {load:.1f} before the run.",
            "",
            *table,
            "",
            "Not measured:",
            "",
            *(f"- {line}" for line in NOT_MEASURED),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--document", action="store_true", help="rewrite docs/the-discussion.md")
    parser.add_argument("--only", nargs="*", choices=[idea.__name__ for idea in IDEAS])
    asked = parser.parse_args()
    if not COMPILED:
        raise SystemExit("the runtime is interpreted: tools/setup.sh build")
    load = os.getloadavg()[0]
    wanted = [idea for idea in IDEAS if not asked.only or idea.__name__ in asked.only]
    go_times = real_go() if {hint, neighbour} & {*wanted} else {}
    rows: list[Row] = []
    for idea in wanted:
        print(idea.__name__, file=sys.stderr, flush=True)
        rows += idea(go_times)
    results.write("discussion", {"rows": [vars(row) for row in rows]})
    if asked.document:
        PAGE.write_text(document(rows, load), encoding="utf-8")
    else:
        print(json.dumps([vars(row) for row in rows], indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
