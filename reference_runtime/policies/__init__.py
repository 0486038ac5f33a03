"""Retake policies by name: one small class each, chosen with ``pretake run --retake NAME``."""

from __future__ import annotations

from reference_runtime.own_file import load_from_file
from reference_runtime.policies.adaptive import AdaptivePolicy
from reference_runtime.policies.base import RetakePolicy
from reference_runtime.policies.block import BlockPolicy
from reference_runtime.policies.integrated import IntegratedPolicy
from reference_runtime.policies.raw import RawPolicy
from reference_runtime.policies.sched_out import SchedOutPolicy
from reference_runtime.policies.sysmon import SysmonPolicy
from reference_runtime.policies.thread_state import ThreadStatePolicy
from reference_runtime.policies.ums import UmsPolicy
from reference_runtime.policies.upcall import UpcallPolicy
from tracer.errors import PretakeError

__all__ = ["POLICIES", "RetakePolicy", "make_policy"]

POLICIES: dict[str, type[RetakePolicy]] = {
    "sysmon": SysmonPolicy,
    "block": BlockPolicy,
    "raw": RawPolicy,
    "sched_out": SchedOutPolicy,
    "thread_state": ThreadStatePolicy,
    "integrated": IntegratedPolicy,
    "adaptive": AdaptivePolicy,
    "ums": UmsPolicy,
    "upcall": UpcallPolicy,
}


def make_policy(name: str, backup_ms: float | None = None) -> RetakePolicy:
    """A new policy object, of a class here or of one in a file of the user's.

    Args:
        name: of :data:`POLICIES`, or ``FILE.py:Class``.
        backup_ms: of a policy that is told of blocks, how long a call of which it was not told
            keeps its P; the policy's own 100 ms where None.

    Raises:
        PretakeError: there is no such policy, or the file or class is none, or it has no backup.
    """
    if ":" in name:
        if backup_ms is not None:
            raise PretakeError(f"{name} takes no backup", "set it in the class (--backup)")
        return own_policy(name)
    try:
        cls = POLICIES[name]
        if backup_ms is None:
            return cls()
        if not issubclass(cls, (SchedOutPolicy, UpcallPolicy)):
            raise PretakeError(
                f"policy {name} has no backup: it is not told of blocks",
                "give --backup with sched_out or upcall",
            )
        if backup_ms <= 0:
            raise PretakeError(f"a backup of {backup_ms:g} ms is none", "give more than 0")
        return cls(net_ns=round(backup_ms * 1e6))
    except KeyError:
        raise PretakeError(
            f"no retake policy is called {name!r}",
            f"choose one of {', '.join(POLICIES)}, or give FILE.py:CLASS",
        ) from None


def own_policy(target: str) -> RetakePolicy:
    """A policy of a class of the user's; reports call it by the class's ``name``, or its own."""
    found = load_from_file(target, "FILE.py:CLASS")
    if not isinstance(found, type) or not issubclass(found, RetakePolicy):
        file, _, class_name = target.rpartition(":")
        raise PretakeError(
            f"{file} has no retake policy {class_name!r}",
            f"write class {class_name or 'Mine'}(RetakePolicy)",
        )
    if "name" not in found.__dict__:
        found.name = found.__name__
    try:
        return found()
    except TypeError as error:
        raise PretakeError(
            f"{target} cannot be made: {error}", "let it take no arguments"
        ) from None
