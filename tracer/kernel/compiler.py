"""The BPF programs of ``tracer/bpf``, compiled by bcc.

The files are joined into one text, each behind a ``#line`` so that a message names the right
place, and compiled with the record structs made from :mod:`tracer.trace.schema`. What varies goes
in as ``-D`` numbers; no text is substituted.

bcc only compiles. The instructions and the shapes of the maps that it makes are an
:class:`~tracer.kernel.object.Object`, which knows nothing of the kernel that it was made on
(:mod:`tracer.kernel.constants`).
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np

from tracer.errors import PretakeError
from tracer.kernel.bcc_loader import kernel_source, load_bcc
from tracer.kernel.constants import constants_header
from tracer.kernel.object import INSTRUCTION, MapShape, Object, map_references
from tracer.kernel.records import arch_c_header, c_header
from tracer.targets.layout import layout_c_header
from tracer.trace.schema import TABLES

__all__ = [
    "FOLLOW_PROCESS",
    "OPTIONAL_TRACEPOINTS",
    "RING_TABLES",
    "TAIL_CALLS",
    "TELL_CALLS",
    "TRACEPOINTS",
    "UPROBE_PREFIXES",
    "compile_programs",
    "compile_return_flag",
    "compile_upcall",
    "compiler_version",
    "sources_digest",
]

_CONSTANTS: Final = "constants.bpf.c"
_SOURCES: Final = (
    _CONSTANTS,
    "arch.bpf.c",
    "common.bpf.c",
    "rings.bpf.c",
    "runtime_images.bpf.c",
    "runtime_memory.bpf.c",
    "runtime_state.bpf.c",
    "live.bpf.c",
    "runtime_probes.bpf.c",
    "ps_seen.bpf.c",
    "look_at_all.bpf.c",
    "look_at_switch.bpf.c",
    "look_at_given.bpf.c",
    "calls.bpf.c",
    "calls_exact.bpf.c",
    "calls_inferred.bpf.c",
    "signals.bpf.c",
    "stacks.bpf.c",
    "sched.bpf.c",
    "tasks.bpf.c",
    "uprobes.bpf.c",
)

RING_TABLES: Final = tuple(table for table in TABLES.values() if table.ring)
"""Tables that are filled through a ring, in the order of their numbers in BPF."""

TRACEPOINTS: Final = {
    # Those that tell of new targets come first, so that no target is born unseen.
    "sched_process_fork": "on_sched_process_fork",
    "sched_process_exec": "on_sched_process_exec",
    "sched_process_exit": "on_sched_process_exit",
    "task_rename": "on_task_rename",
    "sys_exit": "on_sys_exit",
    "sys_enter": "on_sys_enter",
    "sched_waking": "on_sched_waking",
    "sched_wakeup_new": "on_sched_wakeup_new",
    "signal_generate": "on_signal_generate",
    "signal_deliver": "on_signal_deliver",
    "page_fault_user": "on_page_fault_user",
    "sched_switch": "on_sched_switch",
}
"""Tracepoints and the programs that go there, in the order they are attached."""

UPROBE_PREFIXES: Final = ("go_", "reference_")
"""How the names of the programs begin that run at functions of a runtime."""

OPTIONAL_TRACEPOINTS: Final = ("page_fault_user",)
"""Those of one architecture, or one configuration: what hangs on them is unknown without."""

TAIL_CALLS: Final = {
    "after_switch": (
        "sched_switch",
        ("on_thread_left", "who_left", "look_after_switch", "look_at_one"),
    )
}
"""Arrays of programs: the tracepoint whose program ends in one of them, and they, in order."""

FOLLOW_PROCESS: Final = "follow_process"
"""The program that walks over the machine's threads."""

TELL_CALLS: Final = "tell_calls_over"
"""The program that walks over them at the end; none where calls have tracepoints of their own."""

_RETURN_FLAG: Final = "return_flag.bpf.c"
_UPCALL: Final = "upcall.bpf.c"


def compile_programs(defines: Mapping[str, int]) -> Object:
    """All programs, compiled now.

    Args:
        defines: ``-D`` numbers, as ``LIVE``.

    Raises:
        PretakeError: bcc or headers are missing, or the caller may not make maps.
    """
    flags = [f"-D{name}={value}" for name, value in sorted(defines.items())]
    return _compile(_text(*_SOURCES), flags)


def compile_return_flag() -> Object:
    """The program of :mod:`tracer.kernel.return_flag`; raises as :func:`compile_programs`."""
    return _compile(_text(_CONSTANTS, _RETURN_FLAG), [])


def compile_upcall() -> Object:
    """The program of :mod:`tracer.kernel.upcall`; raises as :func:`compile_programs`."""
    return _compile(_text(_CONSTANTS, "arch.bpf.c", _UPCALL), [])


def compiler_version() -> str:
    """Of bcc, for people.

    Raises:
        PretakeError: it is not installed.
    """
    return f"bcc {load_bcc().__version__}"


def sources_digest() -> str:
    """Of everything that is compiled: other sources have another one."""
    parts = [_text(*_SOURCES, _RETURN_FLAG, _UPCALL), *_headers().values()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _text(*sources: str) -> str:
    folder = resources.files("tracer") / "bpf"
    return "\n".join(f'#line 1 "{name}"\n{(folder / name).read_text("utf-8")}' for name in sources)


def _headers() -> dict[str, str]:
    rings = [f"\tRING_{table.name.upper()}," for table in RING_TABLES]
    numbers = "\n".join(["enum ring {", *rings, "\tRING_COUNT,", "};", ""])
    return {
        "constants.h": constants_header(),
        "records.h": c_header() + "\n" + numbers,
        "layout.h": layout_c_header(),
        "arch.h": arch_c_header(),
    }


def _compile(text: str, flags: list[str]) -> Object:
    bcc = load_bcc()
    if "BCC_KERNEL_SOURCE" not in os.environ:
        os.environ["BCC_KERNEL_SOURCE"] = str(kernel_source())
    with tempfile.TemporaryDirectory(prefix="pretake-") as folder:
        for name, content in _headers().items():
            Path(folder, name).write_text(content, "utf-8")
        try:
            with _stderr_to_text() as log:
                bpf = bcc.BPF(text=text.encode(), cflags=[f"-I{folder}", *flags])
        except Exception as error:
            if os.geteuid() != 0:
                raise PretakeError(
                    "the kernel lets only root load BPF programs", "run it with sudo"
                ) from error
            raise PretakeError(
                f"the BPF programs cannot be compiled: {_telling_line(log(), error)}",
                "see 'pretake doctor'",
            ) from error
        try:
            return _taken_from(bcc.libbcc.lib, bpf.module)
        finally:
            bpf.cleanup()


def _taken_from(lib: Any, module: Any) -> Object:  # noqa: ANN401 - bcc has no types
    """Maps and instructions of a module that bcc compiled."""
    handle, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_ulonglong
    # Those that bcc's own Python does not declare.
    for name, result, arguments in (
        ("bpf_num_tables", number, [handle]),
        ("bpf_table_name", ctypes.c_char_p, [handle, number]),
        ("bpf_table_key_size_id", size, [handle, number]),
        ("bpf_table_leaf_size_id", size, [handle, number]),
        ("bpf_table_fd_id", ctypes.c_int, [handle, number]),
        ("bpf_table_flags_id", ctypes.c_int, [handle, number]),
    ):
        getattr(lib, name).restype, getattr(lib, name).argtypes = result, arguments
    maps, by_fd = [], {}
    for i in range(lib.bpf_num_tables(module)):
        name = lib.bpf_table_name(module, i)
        by_fd[lib.bpf_table_fd_id(module, i)] = i
        maps.append(
            MapShape(
                name.decode(),
                lib.bpf_table_type_id(module, i),
                lib.bpf_table_key_size_id(module, i),
                lib.bpf_table_leaf_size_id(module, i),
                lib.bpf_table_max_entries_id(module, i),
                lib.bpf_table_flags_id(module, i),
                lib.bpf_table_leaf_desc(module, name).decode(),
            )
        )
    functions = {}
    for i in range(lib.bpf_num_functions(module)):
        name = lib.bpf_function_name(module, i)
        raw = ctypes.string_at(
            lib.bpf_function_start(module, name), lib.bpf_function_size(module, name)
        )
        code = np.frombuffer(raw, INSTRUCTION).copy()
        for at in map_references(code):
            code["imm"][at] = by_fd[int(code["imm"][at])]
        functions[name.decode()] = code.tobytes()
    return Object(tuple(maps), functions)


@contextlib.contextmanager
def _stderr_to_text() -> Iterator[Callable[[], str]]:
    """Catch what bcc's library writes to file descriptor 2; yields a function that tells it."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        text = ""
        try:
            yield lambda: text
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            text = file.read().decode("utf-8", "replace")


def _telling_line(log: str, error: Exception) -> str:
    """The line of a compiler's log that tells most."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return (errors or lines[-1:] or [str(error)])[0][:200]
