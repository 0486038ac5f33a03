"""What finds no room in the kernel is left out, and counted."""

from __future__ import annotations

import numpy as np
import pytest

from tests.go.looked import inspected, rows_of, run
from tests.kernel.watched import Watched
from tracer.capture.layouts import FileIdentity
from tracer.capture.programs import Programs

READS = 20


def test_a_stack_for_which_there_is_no_room_is_counted() -> None:
    binary = inspected("blockread")
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
    # A read whose timer was due before the thread came to it does not block.
    assert len(blocks) > READS / 2
    assert blocks["stack_id"].isna().all()
    assert programs.followed.shortfalls()["stacks"] == len(blocks)
    programs.close()


@pytest.mark.parametrize(("ps", "all_looked_at"), [(2, True), (34, True), (35, False)])
def test_a_look_at_more_ps_than_one_run_reads(ps: int, all_looked_at: bool) -> None:
    # With one P a run, P 1 is seen by the second run, P 33 by the 34th and last, and P 34 by none.
    # Go gives the goroutine in read the Ps of the highest numbers: some of them are among the 34.
    binary = inspected("stwread")
    programs = Programs(1 << 20, defines={"GO_PS_AT_A_TIME": 1, "GO_TAKES_AT_A_TIME": 1})
    run(programs, binary, "200", environment={"GOMAXPROCS": str(ps)}, probes=binary.probes)
    rows = rows_of(programs)["runtime"]
    missed = programs.followed.shortfalls()["ps"]
    programs.close()
    taken = rows[(rows["kind"] == "retake") & (rows["reason"] == "stw")]
    assert len(taken) >= 1
    assert set(taken["p"]) <= set(range(min(ps, 34)))
    # Each stop looks once at least, and is told where one look was not at all Ps. The program may
    # end between the last one's begin and its look.
    stops = (rows["kind"] == "stw_start").sum()
    assert stops > 1
    assert missed == 0 if all_looked_at else missed >= stops - 1
