"""Workloads by name, and the two ways to run one: by name, or a user's own file."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from reference_runtime.current import COMPILED
from reference_runtime.gmp import Goroutine
from reference_runtime.like import LEAN
from reference_runtime.own_file import load_from_file
from reference_runtime.policies import make_policy
from reference_runtime.runtime import MOST_PROCS, Runtime
from reference_runtime.workloads.base import Result, Workload
from reference_runtime.workloads.calls import Calls
from reference_runtime.workloads.cpu import Cpu, Endless, Stw
from reference_runtime.workloads.echo import Echo
from reference_runtime.workloads.fanout import Fanout
from reference_runtime.workloads.files import Files
from reference_runtime.workloads.latency import distribution
from reference_runtime.workloads.mix import Mix
from reference_runtime.workloads.prime import Prime
from reference_runtime.workloads.readiness import Readiness
from reference_runtime.workloads.timers import Timers
from tracer.errors import PretakeError

__all__ = ["WORKLOADS", "make_workload", "run_file", "run_workload"]

FILE_LIMIT_S = 60.0
"""How long a file of the user's runs, unless its caller says."""

MOST = 10**12
"""No parameter of a workload is larger: as a time in ns it is a quarter of an hour."""

WORKLOADS: dict[str, type[Workload]] = {
    cls.name: cls
    for cls in (Echo, Mix, Calls, Files, Timers, Fanout, Readiness, Prime, Endless, Cpu, Stw)
}


def make_workload(name: str, **parameters: object) -> Workload:
    """A workload with its parameters; those that are None keep their default.

    Raises:
        PretakeError: no such workload, no such parameter of it, or no value for it.
    """
    if name not in WORKLOADS:
        raise PretakeError(
            f"no workload is called {name!r}",
            f"choose one of {', '.join(WORKLOADS)}, or give FILE.py:FUNCTION",
        )
    cls = WORKLOADS[name]
    known = {field.name for field in fields(cls)}
    for parameter in parameters:
        if parameter not in known:
            raise PretakeError(
                f"workload {name} has no parameter {parameter!r}",
                f"it has {', '.join(sorted(known))}",
            )
    given: dict[str, Any] = {key: value for key, value in parameters.items() if value is not None}
    kinds = get_type_hints(cls)
    for parameter, value in given.items():
        _refuse_unfit(cls, parameter, kinds[parameter], value)
    return cls(**given)


def _refuse_unfit(cls: type[Workload], parameter: str, kind: object, value: object) -> None:
    """Refuse a value of another type, or a number that counts or measures nothing."""
    # Fields of a type or None: no value of None comes here.
    (wanted, *_) = get_args(kind) or (kind,)
    if wanted is bool:
        fits, mend = isinstance(value, bool), "give true or false"
    elif wanted is str:
        fits, mend = isinstance(value, str), "give a word"
    else:
        least = int(parameter in cls.not_zero)
        number = int if wanted is int else int | float
        fits = isinstance(value, number) and not isinstance(value, bool)
        if parameter == "seed":
            mend = "give a whole number"
        else:
            fits = fits and least <= cast(float, value) <= MOST
            mend = f"give a {'whole ' if wanted is int else ''}number from {least} to {MOST}"
    if not fits:
        raise PretakeError(f"{value!r} is no {parameter} of workload {cls.name}", mend)


def run_workload(
    name: str,
    policy: str = "sysmon",
    procs: int = 1,
    seconds: float | None = None,
    rounds: int | None = None,
    witness: Path | None = None,
    record_fd: int | None = None,
    preempt: str | None = None,
    like: str = LEAN.name,
    backup_ms: float | None = None,
    **parameters: object,
) -> Result:
    """Run a workload and tell what it measured.

    Args:
        name: of :data:`WORKLOADS`, or ``FILE.py:FUNCTION`` for a coroutine function of the
            user's.
        policy: a retake policy's name, or ``FILE.py:Class`` of the user's.
        procs: number of Ps.
        seconds: how long; the workload's default where None. For a file of the user's, its time
            limit, a minute where None.
        rounds: how far, instead of how long.
        witness: file for the runtime's own record of its retakes, JSON lines.
        record_fd: open file that the same is appended to.
        preempt: how goroutines are preempted: ``async``, ``cooperative`` (Go's
            ``asyncpreemptoff``, which is accepted too) or ``off``. As ``like`` where None.
        like: like which Go it decides, of :data:`reference_runtime.like.LIKE`.
        backup_ms: of ``sched_out``, how long a call that no event told of keeps its P; 100 where
            None.
        parameters: further fields of the workload's dataclass.

    Returns:
        ``workload``, ``policy``, ``procs``, ``preempt``, ``like``, ``compiled``, ``wall_s``,
        ``rounds`` (null for a user's file), ``ops_per_s``, the workload's own distributions
        (``…_ns``), ``retake_ns`` (entry of a call that lost its P to the first goroutine on that
        P), ``preempt_ns`` (request to a free P), ``stop_ns`` (stop-the-world's times to stop),
        ``suspend_ns`` (one goroutine's) and ``runtime`` (counters of
        :class:`reference_runtime.record.Record`).

    Raises:
        PretakeError: no such workload, policy or parameter, or they do not go together.
        Deadlock: all goroutines are asleep.
    """
    if ":" in name:
        return run_file(name, policy, procs, witness, record_fd, preempt, seconds, like, backup_ms)
    if not 1 <= procs <= MOST_PROCS:
        raise PretakeError(f"{procs} is no number of Ps", f"give 1 to {MOST_PROCS} (--procs)")
    workload = make_workload(name, seconds=seconds, rounds=rounds, **parameters)
    workload.check(policy, procs)
    runtime = Runtime(procs, make_policy(policy, backup_ms), preempt=preempt, like=like)
    return measure(runtime, name, workload.main, witness, record_fd, workload.limit_ns())


def run_file(
    target: str,
    policy: str = "sysmon",
    procs: int = 1,
    witness: Path | None = None,
    record_fd: int | None = None,
    preempt: str | None = None,
    seconds: float | None = None,
    like: str = LEAN.name,
    backup_ms: float | None = None,
) -> Result:
    """Run a coroutine function of a file of the user's, without arguments.

    Args:
        target: ``path/to/file.py:function``.
        policy: as in :func:`run_workload`; so are ``procs``, ``witness``, ``record_fd``,
            ``preempt``, ``like``, ``backup_ms`` and the result, with what the function returns as
            ``result``.
        seconds: its time limit, ``FILE_LIMIT_S`` where None.

    Raises:
        PretakeError: no such file or function, or it is no coroutine function.
        TimeLimit: it was not over in time; tells where each goroutine was.
    """
    path_text, _, function_name = target.rpartition(":")
    function = load_from_file(target, "FILE.py:FUNCTION")
    if not inspect.iscoroutinefunction(function):
        raise PretakeError(
            f"{path_text} has no coroutine function {function_name!r}",
            f"write async def {function_name or 'main'}()",
        )
    runtime = Runtime(procs, make_policy(policy, backup_ms), preempt=preempt, like=like)
    limit_s = FILE_LIMIT_S if seconds is None else seconds
    return measure(
        runtime, target, function, witness, record_fd, round(limit_s * 1e9), is_file=True
    )


def measure(
    runtime: Runtime,
    name: str,
    main: Callable[..., Goroutine],
    witness: Path | None,
    record_fd: int | None,
    limit_ns: int = -1,
    is_file: bool = False,
) -> Result:
    """Run ``main`` and put its result and the runtime's together.

    A workload's result is a dictionary of fields of its own. What a file's function returns is one
    field, whatever it is.
    """
    wall_s = 0.0

    async def timed() -> object:
        # The program's own time: to close a perf event, say, takes the kernel 10 ms and more.
        nonlocal wall_s
        begin_ns = runtime.host.nanotime()
        result = await main()  # type: ignore[misc]
        wall_s = int(runtime.host.nanotime() - begin_ns) / 1e9
        return result

    timed.__name__ = getattr(main, "__name__", "main")
    try:
        result = runtime.run(timed, limit_ns=limit_ns, limit_ends_run=is_file)
    finally:
        if witness is not None:
            runtime.write_witness(witness)
        if record_fd is not None:
            runtime.record.append(record_fd)
    own = {"rounds": None, "result": result}
    if not is_file and isinstance(result, dict):
        own = result
    rounds = own.get("rounds")
    return {
        "workload": name,
        "policy": runtime.policy.name,
        "procs": runtime.procs,
        "preempt": runtime.preempt,
        "like": runtime.rules.name,
        "compiled": COMPILED,
        "wall_s": wall_s,
        "ops_per_s": rounds / wall_s if isinstance(rounds, int) else None,
        **own,
        "retake_ns": distribution(runtime.record.retake_ns),
        "preempt_ns": distribution(runtime.record.preempt_ns),
        "stop_ns": distribution(runtime.record.stop_ns),
        "suspend_ns": distribution(runtime.record.suspend_ns),
        "runtime": runtime.record.counters(),
    }
