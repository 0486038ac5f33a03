"""What finds no room in the kernel is left out, and counted."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.go import toolchains
from tests.kernel.watched import Watched
from tracer.capture.layouts import FileIdentity
from tracer.capture.programs import Programs
from tracer.targets import go
from tracer.trace.schema import TABLES

READS = 5


def test_a_stack_for_which_there_is_no_room_is_counted() -> None:
    binary = go.inspect(toolchains.build("blockread"))
    assert binary is not None
    programs = Programs(1 << 20)
    programs.layouts.set_binary(FileIdentity.of(binary.path.stat()), binary.layout)
    stack = np.zeros((), programs.loaded.shapes["stacks"].dtype)
    # Numbers that no stack has: a stack's own is a part of a hash, and positive.
    for number in range(programs.loaded.shapes["stacks"].entries):
        programs.loaded.update("stacks", np.array(1 << 31 | number, np.uint32), stack)
    assert programs.followed.shortfalls()["stacks"] == 0
    with Watched([str(binary.path), str(READS)], programs=programs) as watched:
        pass
    blocks = watched.tables["block"]
    assert len(blocks) >= READS
    assert blocks["stack_id"].isna().all()
    assert programs.followed.shortfalls()["stacks"] == len(blocks)
    programs.close()


@pytest.mark.parametrize(("ps", "all_looked_at"), [(2, True), (34, True), (35, False)])
def test_a_look_at_more_ps_than_one_run_reads(ps: int, all_looked_at: bool) -> None:
    # With one P a run, P 1 is seen by the second run, P 33 by the 34th and last, and P 34 by none.
    # Go gives the goroutine in read the Ps of the highest numbers: some of them are among the 34.
    binary = go.inspect(toolchains.build("stwread"))
    assert binary is not None
    programs = Programs(1 << 20, defines={"GO_PS_AT_A_TIME": 1, "GO_TAKES_AT_A_TIME": 1})
    programs.layouts.set_binary(FileIdentity.of(binary.path.stat()), binary.layout)
    programs.probes.attach()
    gate_out, gate_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(gate_out, 1)
        environment = {**os.environ, "GOMAXPROCS": str(ps)}
        os.execve(binary.path, [str(binary.path), "200"], environment)
    keeper = programs.start_keeper(pid)
    with binary.path.open("rb") as file:
        at = [
            (p.handler, p.file_offset, os.pread(file.fileno(), 16, p.file_offset))
            for p in binary.probes
        ]
        keeper.probe(pid, file.fileno(), at)
    programs.followed.follow(pid, before_exec=True)
    os.write(gate_in, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    programs.detach()
    keeper.close()
    os.close(gate_in)
    os.close(gate_out)
    ring = programs.rings.rings["runtime"]
    rows = TABLES["runtime"].to_arrow(ring.peek().copy()).to_pandas()
    ring.release()
    missed = programs.followed.shortfalls()["ps"]
    programs.close()
    taken = rows[(rows["kind"] == "retake") & (rows["reason"] == "stw")]
    assert len(taken) >= 1
    assert set(taken["p"]) <= set(range(min(ps, 34)))
    # Each stop looks once at least, and is told where one look was not at all Ps.
    stops = (rows["kind"] == "stw_start").sum()
    assert stops > 0
    assert missed == 0 if all_looked_at else missed >= stops
