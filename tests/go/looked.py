"""A program of this folder, built and run as the target, and what the rings hold at its end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from tests.forced import lacking
from tests.go import toolchains
from tracer.capture.layouts import FileIdentity
from tracer.capture.options import probe_defines
from tracer.capture.programs import Programs
from tracer.targets import go
from tracer.targets.layout import Probe
from tracer.trace.schema import TABLES

__all__ = ["built", "inspected", "looked", "programs", "rows_of", "run"]


@contextlib.contextmanager
def programs(probes: str = "none") -> Iterator[Programs]:
    """The BPF programs, as a capture would load them."""
    loaded = Programs(buffer_bytes=16 << 20, defines=probe_defines(probes))
    try:
        yield loaded
    finally:
        loaded.close()


def built(build: Callable[..., Path], *what: str) -> Path:
    """What ``build`` makes; the test is skipped where that Go cannot be had, unless forced."""
    try:
        return build(*what)
    except LookupError as error:
        lacking(str(error), "PRETAKE_FORCE_GO")


def inspected(
    program: str, version: str = toolchains.VERSIONS[-1], linkage: str = "static"
) -> go.GoBinary:
    """A program of this folder, built and looked at."""
    binary = go.inspect(built(toolchains.build, program, version, linkage))
    assert binary is not None
    return binary


def run(
    kernel: Programs,
    binary: go.GoBinary,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    probes: Sequence[Probe] = (),
) -> None:
    """Run a binary to its end, in reach from its first instruction on.

    Args:
        kernel: the programs; nothing is attached before, nor after.
        binary: what to run; its layout is told to the kernel here.
        arguments: its own.
        environment: what is set for it, beside our own.
        probes: where uprobes are set.
    """
    kernel.layouts.set_binary(FileIdentity.of(binary.path.stat()), binary.layout)
    kernel.probes.attach()
    gate_out, gate_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(gate_out, 1)
        own = {**os.environ, **(environment or {})}
        os.execve(binary.path, [str(binary.path), *arguments], own)
    keeper = kernel.start_keeper(pid) if probes else None
    if keeper is not None:
        with binary.path.open("rb") as file:
            at = [
                (p.handler, p.file_offset, os.pread(file.fileno(), 16, p.file_offset))
                for p in probes
            ]
            keeper.probe(pid, file.fileno(), at)
    kernel.followed.follow(pid, before_exec=True)
    os.write(gate_in, b"x")
    _, status = os.waitpid(pid, 0)
    assert status == 0
    os.close(gate_in)
    os.close(gate_out)
    kernel.detach()
    if keeper is not None:
        keeper.close()


def rows_of(kernel: Programs) -> dict[str, pd.DataFrame]:
    """The rows of each ring, which are taken out of it."""
    tables = {}
    for name, ring in kernel.rings.rings.items():
        tables[name] = TABLES[name].to_arrow(ring.peek().copy()).to_pandas()
        ring.release()
    return tables


def looked(
    kernel: Programs,
    binary: go.GoBinary,
    argument: str,
    environment: Mapping[str, str],
    **wrong: int,
) -> dict[str, pd.DataFrame]:
    """Run a binary with some fields of its layout read elsewhere, and give the rows."""
    layout = dataclasses.replace(binary.layout, **wrong)
    run(kernel, dataclasses.replace(binary, layout=layout), argument, environment=environment)
    return rows_of(kernel)
