"""What looks at a program's memory tell, with its layout as it is or with one offset wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping

import pandas as pd

from tests.go import toolchains
from tracer.capture.layouts import FileIdentity
from tracer.capture.options import probe_defines
from tracer.capture.programs import Programs
from tracer.targets import go
from tracer.trace.schema import TABLES

__all__ = ["inspected", "looked", "programs"]


@contextlib.contextmanager
def programs(probes: str = "none") -> Iterator[Programs]:
    """The BPF programs, as a capture would load them."""
    loaded = Programs(buffer_bytes=16 << 20, defines=probe_defines(probes))
    try:
        yield loaded
    finally:
        loaded.close()


def inspected(program: str, version: str) -> go.GoBinary:
    """A program of this folder, built and looked at."""
    binary = go.inspect(toolchains.build(program, version))
    assert binary is not None
    return binary


def looked(
    kernel: Programs,
    binary: go.GoBinary,
    argument: str,
    environment: Mapping[str, str],
    **wrong: int,
) -> dict[str, pd.DataFrame]:
    """Run a binary to its end, and give the rows of each ring.

    Args:
        kernel: the programs; nothing is attached before, nor after.
        binary: what to run.
        argument: its only one.
        environment: what is set for it, beside our own.
        wrong: fields of the layout that are to be read elsewhere.
    """
    layout = dataclasses.replace(binary.layout, **wrong)
    kernel.layouts.set_binary(FileIdentity.of(binary.path.stat()), layout)
    kernel.probes.attach()
    gate_out, gate_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(gate_out, 1)
        os.execve(binary.path, [str(binary.path), argument], {**os.environ, **environment})
    kernel.followed.follow(pid, before_exec=True)
    os.write(gate_in, b"x")
    _, status = os.waitpid(pid, 0)
    assert status == 0
    os.close(gate_in)
    os.close(gate_out)
    kernel.detach()
    tables = {}
    for name, ring in kernel.rings.rings.items():
        tables[name] = TABLES[name].to_arrow(ring.peek().copy()).to_pandas()
        ring.release()
    return tables
