"""A Go execution trace as text, by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.trust.go_trace import blocked, is_go_trace, read_go_trace, steals
from tracer.errors import PretakeError

# G 7 on thread 101 enters a call on P 2 at 100; sysmon (thread 99) takes P 2 at 300. G 8 on
# thread 102 enters on P 2 at 400 and comes back; thread 102 stops its own P 2 at 500.
PARSED = """\
M=101 P=2 G=7 StateTransition Time=100 GoID=7 Running->Syscall Reason=""
Stack=
\tsyscall.Read @ 0x46be03

M=99 P=-1 G=-1 StateTransition Time=300 ProcID=2 Running->Idle Reason=""
M=102 P=-1 G=-1 StateTransition Time=350 ProcID=2 Idle->Running Reason=""
M=102 P=2 G=8 StateTransition Time=400 GoID=8 Running->Syscall Reason=""
M=102 P=2 G=8 StateTransition Time=450 GoID=8 Syscall->Running Reason=""
M=102 P=2 G=-1 StateTransition Time=500 ProcID=2 Running->Idle Reason=""
"""


def test_a_steal_is_told_with_who_lost_what() -> None:
    told = steals(PARSED)
    assert told.to_dict("records") == [
        {"ts_ns": 300, "enter_ns": 100, "tid": 101, "p": 2, "goid": 7, "thief_tid": 99}
    ]
    assert told.attrs == {"begin_ns": 100, "end_ns": 500}


def test_the_record_lasts_from_the_first_to_the_last_event_of_any_kind() -> None:
    before = "M=-1 P=-1 G=-1 Sync Time=60 N=1\n"
    first = 'M=101 P=2 G=-1 StateTransition Time=70 GoID=7 Undetermined->Running Reason=""\n'
    last = 'M=102 P=3 G=9 Metric Time=620 Name="/memory" Value=Value{Uint64(1)}\n'
    after = "M=-1 P=-1 G=-1 Sync Time=640 N=2\n"
    told = steals("".join([before, first, PARSED, last, after]))
    assert told.attrs == {"begin_ns": 70, "end_ns": 620}
    assert len(told) == 1


def test_a_steal_from_a_call_that_nobody_saw_begin_is_left_out() -> None:
    assert steals(PARSED.partition("M=99")[2].join(["M=99", ""])).empty
    assert steals("").empty


@pytest.mark.parametrize(
    ("switch", "told"),
    [
        ({"ts_ns": 200, "prev_tid": 101, "prev_state": "blocked"}, True),
        ({"ts_ns": 200, "prev_tid": 101, "prev_state": "preempted"}, False),
        ({"ts_ns": 200, "prev_tid": 102, "prev_state": "blocked"}, False),
        ({"ts_ns": 99, "prev_tid": 101, "prev_state": "blocked"}, False),
        ({"ts_ns": 301, "prev_tid": 101, "prev_state": "blocked"}, False),
    ],
)
def test_whether_the_thread_had_blocked(switch: dict[str, object], told: bool) -> None:
    switches = pd.DataFrame([switch]).astype({"prev_tid": "Int32"})
    assert blocked(steals(PARSED), switches).tolist() == [told]


def test_another_file_is_no_go_trace(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b'{"ts_ns": 1}\n')
    assert not is_go_trace(file)
    file.write_bytes(b"go 1.21 trace\0\0\0rest")
    assert is_go_trace(file)
    with pytest.raises(PretakeError, match=r"Go 1\.22 or later"):
        read_go_trace(file)
