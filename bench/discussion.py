"""Each idea of the discussion of Go issue 29734 beside its figure: ``python -m bench.discussion``.

Everything is measured in one run of some three minutes, on the reference runtime (here and on the
simulated host) and, where Go can be built, on gVisor's pattern in real Go. ``--document`` writes
docs/the-discussion.md anew, with its pictures (``make bench-discussion``). Rows whose figure could
not be had say why. Compare ratios: absolute times depend on the machine and on what else it does.
The rows are in ``bench/ideas/``, by subject.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from bench import results
from bench.go_proposal import PROGRAMS, alone
from bench.ideas.calls import hint, kvm, neighbour
from bench.ideas.preemption import register_map
from bench.ideas.queues import runnext, thief
from bench.ideas.row import ROUNDS, GoTimes, Row
from bench.ideas.told import backup, ums, upcall, whose
from bench.ideas.two_runs import two_runs
from bench.ideas.waiting import poller, readiness, skipped, sources
from bench.ideas.window import window
from reference_runtime.current import COMPILED
from tests.go import toolchains
from tracer.errors import EXIT_STATUS, PretakeError

PAGE = Path(__file__).parent.parent / "docs" / "the-discussion.md"

IDEAS: tuple[Callable[[GoTimes], Iterator[Row]], ...] = (
    hint,
    neighbour,
    window,
    upcall,
    ums,
    backup,
    whose,
    poller,
    skipped,
    thief,
    readiness,
    sources,
    kvm,
    runnext,
    register_map,
    two_runs,
)
HEAD = """\
# The ideas of the discussion, each beside its figure

The discussion is that of Go issue 29734, see [the design](design.md). For example, it says that a
round trip took 112 µs instead of 182 µs with a call that gives its P away. The first row has what
the same change makes here.

`make bench-discussion` (as root) measures every row in one run, and writes this page again.
Compare ratios. *Simulated* figures are the same on every machine. Of real Go the first row is from
the same run; *another run* says where a figure is from.
"""
NOT_MEASURED = (
    "An upcall without privilege, by a signal for each perf event (`F_SETSIG`): considered, and "
    "[not built](../reference_runtime/README.md#how-a-p-comes-back).",
)


def real_go() -> GoTimes:
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
    told = [row.told() for row in rows]
    results.write("discussion", {"rows": told})
    if asked.document:
        try:
            for row in rows:
                if row.draw is not None:
                    row.draw()
        except PretakeError as error:
            print(f"discussion: {error}", file=sys.stderr)
            return EXIT_STATUS
        PAGE.write_text(document(rows, load), encoding="utf-8")
    else:
        print(json.dumps(told, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
