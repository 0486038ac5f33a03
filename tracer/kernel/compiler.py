"""The BPF programs of ``tracer/bpf``: compiled by bcc, and kept in a cache.

The files are joined into one text, each behind a ``#line`` so that a message names the right
place, and compiled with the record structs made from :mod:`tracer.trace.schema` and the running
kernel's offsets from its BTF. What varies goes in as ``-D`` numbers; no text is substituted.

bcc only compiles. The instructions and the shapes of the maps that it makes are an
:class:`~tracer.kernel.object.Object`, which is kept in a cache and loaded without bcc. So a second
capture needs no compiler and no headers.
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
from tracer.kernel import bpf
from tracer.kernel.bcc_loader import cache_folder, kernel_source, load_bcc
from tracer.kernel.btf import Btf, kernel_btf
from tracer.kernel.object import INSTRUCTION, MapShape, Object, map_references
from tracer.kernel.own_files import is_own
from tracer.kernel.records import c_header
from tracer.kernel.return_flag import find_return_flag
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
    "compiled_for",
    "return_flag",
]

SOURCES: Final = (
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

_OFFSETS: Final = {
    # The first struct and path that this kernel has.
    "TASK_PID": (("task_struct", "pid"),),
    "TASK_TGID": (("task_struct", "tgid"),),
    "TASK_COMM": (("task_struct", "comm"),),
    # __state since 2f064a59a11f ("sched: Change task_struct::state").
    "TASK_STATE": (("task_struct", "__state"), ("task_struct", "state")),
    # In thread_info since bcf9033e5449 ("sched: move CPU field back into thread_info").
    "TASK_CPU": (("task_struct", "thread_info.cpu"), ("task_struct", "cpu")),
    "TASK_FLAGS": (("task_struct", "flags"),),
    # Of the current system call (arch/x86/include/asm/thread_info.h).
    "TASK_STATUS": (("task_struct", "thread_info.status"),),
    # TIF_NEED_FPU_LOAD is one of them (tracer/kernel/return_flag.py).
    "TASK_THREAD_FLAGS": (("task_struct", "thread_info.flags"),),
    "TASK_THREAD_PID": (("task_struct", "thread_pid"),),
    "PID_LEVEL": (("pid", "level"),),
    "PID_NUMBERS": (("pid", "numbers"),),
    "TASK_FSBASE": (("task_struct", "thread.fsbase"),),
    "TASK_MM": (("task_struct", "mm"),),
    "MM_EXE_FILE": (("mm_struct", "exe_file"),),
    "MM_START_CODE": (("mm_struct", "start_code"),),
    "MM_END_CODE": (("mm_struct", "end_code"),),
    "BINPRM_INTERP": (("linux_binprm", "interp"),),
    "FILE_INODE": (("file", "f_inode"),),
    "INODE_INO": (("inode", "i_ino"),),
    "INODE_SIZE": (("inode", "i_size"),),
    "INODE_SB": (("inode", "i_sb"),),
    "SB_DEV": (("super_block", "s_dev"),),
    # By 13bc24457850 ("fs: rename i_ctime field to __i_ctime") and, since 3aa63a569c64 ("fs:
    # switch timespec64 fields in inode to discrete integers"), as two numbers.
    "INODE_CTIME_S": (
        ("inode", "i_ctime_sec"),
        ("inode", "__i_ctime.tv_sec"),
        ("inode", "i_ctime.tv_sec"),
    ),
    "INODE_CTIME_NS": (
        ("inode", "i_ctime_nsec"),
        ("inode", "__i_ctime.tv_nsec"),
        ("inode", "i_ctime.tv_nsec"),
    ),
    # Since 769071ac9f20 ("ns: Introduce Time Namespace"); before it, there is one clock.
    "TASK_NSPROXY": (("task_struct", "nsproxy"),),
    "NSPROXY_TIME": (("nsproxy", "time_ns"),),
    "TIME_MONOTONIC_S": (("time_namespace", "offsets.monotonic.tv_sec"),),
    "TIME_MONOTONIC_NS": (("time_namespace", "offsets.monotonic.tv_nsec"),),
    "TASK_SIGNAL": (("task_struct", "signal"),),
    "SIGNAL_LIVE": (("signal_struct", "live"),),
    "REGS_NR": (("pt_regs", "orig_ax"),),
    "REGS_SP": (("pt_regs", "sp"),),
    "REGS_BP": (("pt_regs", "bp"),),
    "REGS_PC": (("pt_regs", "ip"),),
    "REGS_ARG0": (("pt_regs", "di"),),
    "REGS_ARG1": (("pt_regs", "si"),),
    "REGS_ARG2": (("pt_regs", "dx"),),
    "REGS_RETURN": (("pt_regs", "ax"),),
    "REGS_R9": (("pt_regs", "r9"),),
    "REGS_R13": (("pt_regs", "r13"),),
    "SIGACTION_FLAGS": (("k_sigaction", "sa.sa_flags"),),
    "SIGACTION_HANDLER": (("k_sigaction", "sa.sa_handler"),),
}

_UPROBE_LINK: Final = "bpf_uprobe_multi_link"
_KERNEL_NOTES: Final = Path("/sys/kernel/notes")  # the running kernel's build id
_CACHE_LIMIT: Final = 16 << 20
_KEPT_MOST: Final = 24
"""Compiled programs that are kept: some variants, of the last few versions."""

_NO_PREALLOC: Final = 1  # BPF_F_NO_PREALLOC
_KERNEL_FUNCTIONS: Final = {0x7F000001: "bpf_preempt_disable", 0x7F000002: "bpf_preempt_enable"}
"""By the number that ``uprobes.bpf.c`` calls."""
_CALL, _MOVE_IMMEDIATE = 0x85, 0xB7
_PSEUDO_KERNEL_CALL: Final = 2


def compile_programs(defines: Mapping[str, int]) -> Object:
    """All programs, compiled now or before.

    Args:
        defines: ``-D`` numbers, as ``DETAIL_FULL``.

    Raises:
        PretakeError: bcc or headers are missing, or the kernel lacks something.
    """
    notes = b""
    with contextlib.suppress(OSError):
        notes = _KERNEL_NOTES.read_bytes()
    name = _kept_name(defines, notes)
    kept = _kept(name) if notes else None
    if kept is not None:
        return kept
    compiled = _compiled(kernel_btf(), return_flag(), defines)
    _keep(name, compiled)
    return compiled


def compiled_for(
    btf: Btf, notes: bytes, return_flag: int | None, defines: Mapping[str, int]
) -> tuple[str, Callable[[], str]]:
    """All programs, to be compiled for another kernel than this one.

    Args:
        btf: that kernel's types.
        notes: its ELF notes, as its ``/sys/kernel/notes`` has them.
        return_flag: as :mod:`tracer.kernel.return_flag` finds it there.
        defines: as for :func:`compile_programs`.

    Returns:
        A file's name, and what makes its text: one that lies in that machine's
        ``/var/cache/pretake`` by this name, as root's own, is used there by
        :func:`compile_programs`.
    """
    return (
        _kept_name(defines, notes),
        lambda: _compiled(btf, return_flag, defines).to_json(),
    )


def _kept_name(defines: Mapping[str, int], notes: bytes) -> str:
    """Of what is kept: by the sources, the options, and the kernel's build id."""
    parts = [_source_text(), *_headers().values(), *_as_flags(defines)]
    key = hashlib.sha256("\0".join(parts).encode())
    key.update(notes)
    return f"programs-{key.hexdigest()[:32]}.json"


def _compiled(btf: Btf, return_flag: int | None, defines: Mapping[str, int]) -> Object:
    kernel = _kernel_defines(btf)
    if return_flag is not None:
        kernel["THREAD_FLAG_RETURN"] = return_flag
    flags = _as_flags(defines) + _as_flags(kernel)
    return _compile(_source_text(), _headers(), flags, btf)


def _as_flags(defines: Mapping[str, int]) -> list[str]:
    return [f"-D{name}={value}" for name, value in sorted(defines.items())]


def return_flag() -> int | None:
    """The flag that :mod:`tracer.kernel.return_flag` is about; None where it cannot be found."""
    text = (resources.files("tracer") / "bpf" / "return_flag.bpf.c").read_text()
    btf = kernel_btf()
    kernel = _kernel_defines(btf)
    if -1 in (kernel["OFFSET_TASK_THREAD_FLAGS"], kernel["OFFSET_TASK_STATE"]):
        return None
    with contextlib.suppress(bpf.LoadError, OSError):
        return find_return_flag(_compile(text, {}, _as_flags(kernel), btf))
    return None


def _source_text() -> str:
    folder = resources.files("tracer") / "bpf"
    return "\n".join(f'#line 1 "{name}"\n{(folder / name).read_text()}' for name in SOURCES)


def _headers() -> dict[str, str]:
    rings = [f"\tRING_{table.name.upper()}," for table in RING_TABLES]
    numbers = "\n".join(["enum ring {", *rings, "\tRING_COUNT,", "};", ""])
    return {"records.h": c_header() + "\n" + numbers, "layout.h": layout_c_header()}


def _kernel_defines(btf: Btf) -> dict[str, int]:
    defines: dict[str, int] = {}
    for name, places in _OFFSETS.items():
        offset = -1
        for struct_name, path in reversed(places):
            with contextlib.suppress(KeyError):
                offset = btf.offset(struct_name, path)
        defines[f"OFFSET_{name}"] = offset
    # preempt, prev, next, and since 5.18 prev_state.
    if btf.tracepoint_arguments("sched_switch") >= 4:
        defines["SCHED_SWITCH_HAS_PREV_STATE"] = 1
    # A hash that takes memory as it grows: from a program that holds a run queue's lock only since
    # 7c8199e24fa0 ("bpf: Introduce any context BPF specific memory allocator").
    defines["GROWING_HASH"] = _NO_PREALLOC if btf.has_struct("bpf_mem_alloc") else 0
    # Since Linux 6.2 task storage can be looked up by who interrupts a look-up of it.
    if not btf.has_name("bpf_task_storage_get_recur"):
        defines["STORAGE_REFUSES"] = 1
    return defines


def _compile(text: str, headers: Mapping[str, str], flags: list[str], btf: Btf) -> Object:
    bcc = load_bcc()
    if "BCC_KERNEL_SOURCE" not in os.environ:
        os.environ["BCC_KERNEL_SOURCE"] = str(kernel_source())
    with tempfile.TemporaryDirectory(prefix="pretake-") as folder:
        for name, content in headers.items():
            Path(folder, name).write_text(content)
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
            return _taken_from(bcc.libbcc.lib, bpf.module, btf)
        finally:
            bpf.cleanup()


def _taken_from(lib: Any, module: Any, btf: Btf) -> Object:  # noqa: ANN401 - bcc has no types
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
        _call_kernel_functions(code, btf)
        functions[name.decode()] = code.tobytes()
    return Object(tuple(maps), functions, _btf_ids(btf), btf.has_struct(_UPROBE_LINK))


def _btf_ids(btf: Btf) -> dict[str, int]:
    places = {function: f"btf_trace_{name}" for name, function in TRACEPOINTS.items()}
    for name, behind in TAIL_CALLS.values():
        places |= dict.fromkeys(behind, f"btf_trace_{name}")
    places |= dict.fromkeys((FOLLOW_PROCESS, TELL_CALLS), "bpf_iter_task")
    found = {}
    for function, place in places.items():
        with contextlib.suppress(KeyError):
            found[function] = btf.attach_id(place)
    return found


def _call_kernel_functions(code: np.ndarray, btf: Btf) -> None:
    """Put the kernel's functions in the place of their numbers; ``r0 = 0`` where it has none."""
    for number, name in _KERNEL_FUNCTIONS.items():
        calls = (code["op"] == _CALL) & (code["imm"] == number)
        code["op"][calls], code["imm"][calls] = _MOVE_IMMEDIATE, 0
        with contextlib.suppress(KeyError):
            code["imm"][calls] = btf.attach_id(name)
            code["op"][calls], code["regs"][calls] = _CALL, _PSEUDO_KERNEL_CALL << 4


def _kept(name: str) -> Object | None:
    path = cache_folder() / name
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd) as file:
        # Code for the kernel is taken from nobody but the one who loads it.
        if not all(map(is_own, (os.fstat(file.fileno()), path.parent.lstat()))):
            return None
        try:
            return Object.from_json(file.read(_CACHE_LIMIT))
        except (ValueError, KeyError, TypeError):
            return None


def _keep(name: str, compiled: Object) -> None:
    """Keep it for the next capture; one that cannot be kept is compiled again."""
    with contextlib.suppress(OSError):
        folder = cache_folder()
        # Of another version of the programs, or of another kernel.
        old = sorted(folder.glob("programs-*.json"), key=lambda path: path.stat().st_mtime)
        for path in old[:-_KEPT_MOST]:
            path.unlink(missing_ok=True)
        aside = folder / f".{name}.{os.getpid()}"
        aside.touch(mode=0o644)
        aside.write_text(compiled.to_json())
        aside.rename(folder / name)


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
