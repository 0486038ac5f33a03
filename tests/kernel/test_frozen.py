"""Threads of a frozen cgroup are stopped, and no other field of the kernel tells that."""

from __future__ import annotations

import contextlib
import os

import pytest

from tests.kernel.freezers import FREEZERS, freezer_of
from tests.kernel.watched import Watched, wait_in_call
from tracer.capture.programs import Programs
from tracer.kernel.btf import kernel_btf

NR_READ = 0


def states_of_a_frozen_reader(kind: str, field: str = "jobctl") -> list[str]:
    """Why a thread left its CPU that waits for input, is frozen, and ends.

    Args:
        kind: of the freezer.
        field: of ``task_struct``; the capture reads it for ``jobctl``.
    """
    offset = kernel_btf().offset("task_struct", field)
    defines = {"DETAIL_FULL": 1, "OFFSET_TASK_JOBCTL": offset}
    with (
        freezer_of(kind) as freezer,
        contextlib.closing(Programs(1 << 20, defines=defines)) as programs,
        Watched(["cat"], programs=programs) as watched,
    ):
        wait_in_call(watched.pid, NR_READ)
        (freezer.group / "cgroup.procs").write_text(str(watched.pid))
        freezer.file.write_text(freezer.freeze)
        while not freezer.is_frozen:
            os.sched_yield()
        freezer.file.write_text(freezer.thaw)
        (freezer.root / "cgroup.procs").write_text(str(watched.pid))
    switches = watched.tables["sched_switch"]
    return [*switches.loc[switches["prev_tid"] == watched.pid, "prev_state"]]


@pytest.mark.parametrize("kind", FREEZERS)
def test_a_thread_of_a_frozen_cgroup_is_stopped(kind: str) -> None:
    assert "stopped" in states_of_a_frozen_reader(kind)


@pytest.mark.parametrize("field", ["atomic_flags", "nvcsw"])
def test_another_field_does_not_tell_it(field: str) -> None:
    """Of the same size: the verifier refuses to read two fields as one."""
    assert "stopped" not in states_of_a_frozen_reader("cgroup2", field)
