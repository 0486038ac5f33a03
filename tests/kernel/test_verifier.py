"""What the kernel's verifier has to go through for each program: its limit is a million."""

from __future__ import annotations

import pytest

from tracer.capture.programs import Programs
from tracer.kernel import bpf
from tracer.kernel.compiler import FOLLOW_PROCESS, TELL_CALLS

pytestmark = pytest.mark.kernel

# An older verifier goes through more: to 6.1 some programs took ten times as much as on 6.18.
MOST_INSTRUCTIONS = 100_000


@pytest.mark.parametrize(
    "defines",
    [(), ("LIVE",), ("NO_STACKS",), ("DETAIL_FULL", "ALL_SIGNALS", "HOST"), ("STORAGE_REFUSES",)],
)
def test_no_program_is_near_the_verifier_s_limit(defines: tuple[str, ...]) -> None:
    programs = Programs(1 << 20, defines=dict.fromkeys(defines, 1))
    programs.probes.attach()
    loaded = set(programs.loaded.run_statistics()) | {FOLLOW_PROCESS, TELL_CALLS}
    kind = (bpf.KPROBE, bpf.UPROBE_MULTI) if programs.loaded.uprobe_links else (bpf.KPROBE, 0)
    for function in programs.loaded.functions:
        if function not in loaded:
            programs.loaded.load(function, *kind)
    gone_through = {
        name: numbers["verified_insns"]
        for name, numbers in programs.loaded.run_statistics().items()
    }
    programs.close()
    for name, count in sorted(gone_through.items(), key=lambda pair: -pair[1]):
        print(f"{count:8} {name}")
    assert len(gone_through) > 20
    if not any(gone_through.values()):
        pytest.skip("this kernel does not tell (before Linux 5.16)")
    assert all(gone_through.values())
    assert {n: c for n, c in gone_through.items() if c > MOST_INSTRUCTIONS} == {}
