"""A thread that loses its CPU inside a uprobe's program must not meet another thread's there.

It was seen on Linux 7.2 under PREEMPT_LAZY, where the kernel died of it (``make test-kernels``).
This machine's kernel may never take the CPU away there: so it is asked of the instructions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tracer.capture.options import probe_defines
from tracer.kernel.btf import kernel_btf
from tracer.kernel.compiler import UPROBE_PREFIXES
from tracer.kernel.fitting import fitted_programs

INSTRUCTION = np.dtype([("op", "u1"), ("regs", "u1"), ("off", "<i2"), ("imm", "<i4")])
CALL, HELPER, KERNEL = 0x85, 0x00, 0x20
TAIL_CALL = 12  # BPF_FUNC_tail_call


@pytest.mark.parametrize("defines", [{"LIVE": 1}, *map(probe_defines, ("exact", "none", "both"))])
def test_each_uprobe_keeps_its_cpu_and_has_a_stack_of_its_own(
    defines: Mapping[str, int],
) -> None:
    btf = kernel_btf()
    if not btf.has_name("bpf_preempt_disable"):
        pytest.skip("this kernel has no bpf_preempt_disable (Linux 6.10)")
    functions = fitted_programs(defines).functions
    uprobes = {name for name in functions if name.startswith(UPROBE_PREFIXES)}
    assert {"reference_mstart", "reference_transition"} <= uprobes
    for name in uprobes:
        code = np.frombuffer(functions[name], INSTRUCTION)
        calls = code[code["op"] == CALL][["regs", "imm"]].tolist()
        own = [(KERNEL, btf.attach_id(f"bpf_preempt_{what}")) for what in ("disable", "enable")]
        assert calls[0] == own[0], name
        # The verifier sees that it is enabled on every way out.
        assert own[1] in calls, name
        assert (HELPER, TAIL_CALL) in calls, name
