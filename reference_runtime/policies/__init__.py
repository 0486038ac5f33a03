"""Retake policies by name: one small class each, chosen with ``pretake run --retake NAME``."""

from __future__ import annotations

from reference_runtime.policies.adaptive import AdaptivePolicy
from reference_runtime.policies.base import RetakePolicy
from reference_runtime.policies.block import BlockPolicy
from reference_runtime.policies.integrated import IntegratedPolicy
from reference_runtime.policies.raw import RawPolicy
from reference_runtime.policies.sched_out import SchedOutPolicy
from reference_runtime.policies.sysmon import SysmonPolicy
from reference_runtime.policies.thread_state import ThreadStatePolicy
from reference_runtime.policies.ums import UmsPolicy
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
}


def make_policy(name: str) -> RetakePolicy:
    """A new policy object.

    Raises:
        PretakeError: there is no policy called ``name``.
    """
    try:
        return POLICIES[name]()
    except KeyError:
        raise PretakeError(
            f"no retake policy is called {name!r}", f"choose one of {', '.join(POLICIES)}"
        ) from None
