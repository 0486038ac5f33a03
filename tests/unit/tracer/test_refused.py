"""What is told where the kernel lets the caller load no BPF program."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.kernel.refused import refusal

BPF, ADMIN, PTRACE = "0000008000000000", "0000000000200000", "0000000000080000"
ROOT = "the kernel lets only root load BPF programs: run it with sudo"
PROFILE = (
    "the seccomp profile of this container refuses bpf: "
    "run it with one that allows bpf to CAP_BPF and perf_event_open to CAP_PERFMON"
)


@pytest.mark.parametrize(
    ("capabilities", "seccomp", "told"),
    [
        (BPF, "Seccomp:\t2\n", PROFILE),
        (ADMIN, "Seccomp:\t2\n", PROFILE),
        # Without the right the filter is not to blame.
        (PTRACE, "Seccomp:\t2\n", ROOT),
        (BPF, "Seccomp:\t0\n", ROOT),
        # A kernel without seccomp says nothing of it.
        (BPF, "", ROOT),
    ],
)
def test_a_filter_is_blamed_only_where_the_right_is_there(
    capabilities: str, seccomp: str, told: str, tmp_path: Path
) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tpretake\nCapEff:\t{capabilities}\n{seccomp}Groups:\t\n")
    assert str(refusal(status)) == told
