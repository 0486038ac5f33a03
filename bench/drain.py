"""How fast records leave the kernel: pretake's drain, bcc's callback, a minute at a high rate."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tracer.capture.programs import Programs
from tracer.kernel.bcc_loader import kernel_source, load_bcc
from tracer.trace.schema import TABLES
from tracer.trace.writer import TraceWriter

__all__ = ["drain", "start_s", "sustained"]

_BUFFER = 512 << 20
_PASSES = 5

_BCC_TEXT = """
struct record { u64 ts, nr; u64 rest[6]; };
BPF_RINGBUF_OUTPUT(events, PAGES);
RAW_TRACEPOINT_PROBE(sys_enter) {
    if ((bpf_get_current_pid_tgid() >> 32) != PID) return 0;
    struct record r = { .ts = bpf_ktime_get_ns(), .nr = ctx->args[1] };
    events.ringbuf_output(&r, sizeof(r), BPF_RB_NO_WAKEUP);
    return 0;
}
"""


def drain(calls: Path) -> dict[str, float]:
    """Records a second of CPU time on one core, from a full ring that nobody fills meanwhile.

    Args:
        calls: the program of that name.

    Returns:
        ``events_per_s``: from the ring to Arrow columns; ``stored_per_s``: to Parquet on disk,
        compressed; ``bcc_callback_per_s``: bcc's own loop, with a callback that reads one field.
    """
    return {**_own(calls), "bcc_callback_per_s": _callbacks(calls)}


def _own(calls: Path) -> dict[str, float]:
    programs = Programs(_BUFFER, defines={"DETAIL_FULL": 1})
    ring, table = programs.rings.rings["syscall"], TABLES["syscall"]
    taken_s = stored_s = 0.0
    count = 0
    try:
        programs.probes.attach()
        for _ in range(_PASSES):
            _fill(programs, calls)
            begin_s = time.process_time()
            rows = table.to_arrow(ring.peek())
            ring.release()
            taken_s += time.process_time() - begin_s
            count += rows.num_rows
            with tempfile.TemporaryDirectory() as folder:
                writer = TraceWriter(Path(folder) / "x.pretake")
                begin_s = time.process_time()
                writer.write("syscall", rows)
                writer.rotate(now=True)
                stored_s += time.process_time() - begin_s
    finally:
        programs.close()
    return {"events_per_s": count / taken_s, "stored_per_s": count / (taken_s + stored_s)}


def _fill(programs: Programs, calls: Path) -> None:
    """Let a program fill the ring of table syscall, and end."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        ["sh", "-c", 'read -r _ && exec "$@"', "sh", str(calls), "0", "1"],
        stdin=reader,
        stdout=subprocess.DEVNULL,
    )
    os.close(reader)
    programs.followed.follow(process.pid)
    os.write(writer, b"\n")
    os.close(writer)
    process.wait()


def _callbacks(calls: Path) -> float:
    bcc = load_bcc()
    os.environ.setdefault("BCC_KERNEL_SOURCE", str(kernel_source()))
    shell = ["sh", "-c", 'read -r _ && exec "$@"', "sh", str(calls), "0", "1"]
    process = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    bpf = bcc.BPF(text=_BCC_TEXT, cflags=[f"-DPID={process.pid}", "-DPAGES=16384"])
    count = 0

    def on_event(_ctx: object, data: Any, _size: int) -> None:  # noqa: ANN401 - a C pointer
        nonlocal count
        count += 1
        ctypes.cast(data, ctypes.POINTER(ctypes.c_uint64)).contents.value  # noqa: B018

    bpf["events"].open_ring_buffer(on_event)
    process.communicate(b"\n")
    begin_s = time.process_time()
    bpf.ring_buffer_consume()
    taken_s = time.process_time() - begin_s
    bpf.cleanup()
    return count / taken_s


def sustained(calls: Path, rate: int, seconds: int) -> dict[str, float]:
    """A capture of every system call of a program that makes ``rate`` a second.

    Returns:
        ``events_per_s`` that were stored, ``seconds``, and how many were ``lost``.
    """
    with tempfile.TemporaryDirectory(dir=_roomy()) as folder:
        path = Path(folder) / "x.pretake"
        record = [sys.executable, "-m", "pretake", "record", "-q", "--detail", "full"]
        record += ["--buffer", "256M", "--runtime", "none", "-o", str(path), "--", str(calls)]
        tracer = subprocess.Popen(
            [*record, str(rate), str(seconds)], stdout=subprocess.PIPE, text=True
        )
        memory = _memory_until_end(tracer)
        assert tracer.stdout is not None
        calls_made, taken_ns = map(int, tracer.stdout.read().split())
        manifest = json.loads((path / "manifest.json").read_text())
    return {
        "events_per_s": manifest["events"]["syscall"] / taken_ns * 1e9,
        "asked_per_s": rate,
        "calls": calls_made,
        "seconds": taken_ns / 1e9,
        "lost": sum(manifest["lost"].values()),
        "bytes_per_event": manifest["capture"]["bytes_per_event"],
        "tracer_cpu_s": manifest["capture"]["cpu_s"],
        **memory,
    }


def _memory_until_end(process: subprocess.Popen[str]) -> dict[str, float]:
    """A process's own memory (the rings apart): the most, and its slope after the first 20 s.

    It goes up and down as parts are written, every 5 s: the slope is that of each 10 s' least.
    """
    mib: list[float] = []
    while True:
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            told = dict(line.split(":", 1) for line in lines)
            mib.append(int(told.get("RssAnon", "0 kB").split()[0]) / 1024)
        else:
            break
    least = [min(mib[i : i + 10]) for i in range(20, len(mib) - 9, 10)]
    slope = np.polyfit(np.arange(len(least)) * 10, least, 1)[0] if len(least) > 2 else np.nan
    return {"memory_mib": max(mib, default=np.nan), "memory_mib_per_hour": float(slope * 3600)}


def _roomy() -> str | None:
    """A folder on a disk, where /tmp may be memory."""
    return "/var/tmp" if shutil.disk_usage("/var/tmp").free > 4 << 30 else None


def start_s() -> float:
    """Seconds from the start of ``pretake record`` to the first event in its trace."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pretake"
        begin_ns = time.monotonic_ns()
        subprocess.run(
            [sys.executable, "-m", "pretake", "record", "-q", "-o", str(path), "--", "true"],
            check=True,
        )
        from tracer.trace.reader import Trace

        first_ns = int(Trace(path).frame("task", ["ts_ns"])["ts_ns"].min())
    return (first_ns - begin_ns) / 1e9
