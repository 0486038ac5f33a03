"""Runs a command while every CPU is taken away now and then: ``make test-stolen`` (as root).

    python -m tools.stolen_cpus .venv/bin/pytest tests/go/test_probes.py

A host with too many guests does that, and a test that asks for what is true on a quiet machine
only fails there. Each 40 ms a CPU stands still for 0.3 to 25 ms, some 15 % of its time: see
``stolen_cpus.bpf.c``.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tracer.errors import PretakeError
from tracer.kernel.bcc_loader import kernel_source, load_bcc

PERIOD_NS: Final = 40_000_000
MOST_NS: Final = 25_000_000


def main() -> int:
    """Take CPUs until the command ends; its exit status."""
    if len(sys.argv) < 2 or os.geteuid():
        print("usage, as root: python -m tools.stolen_cpus COMMAND...", file=sys.stderr)
        return 2
    try:
        bcc = load_bcc()
        os.environ["BCC_KERNEL_SOURCE"] = str(kernel_source())
    except PretakeError as error:
        print(error, file=sys.stderr)
        return 2
    source = Path(__file__).with_suffix(".bpf.c")
    programs = bcc.BPF(src_file=str(source), cflags=[f"-DMOST_NS={MOST_NS}ULL"])
    again = programs.load_func("keep_on", bcc.BPF.PERF_EVENT)
    programs["again"][ctypes.c_int(0)] = ctypes.c_int(again.fd)
    programs.attach_perf_event(
        ev_type=bcc.PerfType.SOFTWARE,
        ev_config=bcc.PerfSWConfig.CPU_CLOCK,
        fn_name="steal",
        sample_period=PERIOD_NS,
    )
    return subprocess.run(sys.argv[1:]).returncode


if __name__ == "__main__":
    sys.exit(main())
