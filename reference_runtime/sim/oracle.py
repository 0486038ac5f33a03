"""``oracle``: the policy that knows the length of each call, as a bound for real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_runtime.policies.base import BLOCK, NOT_YET, RAW, RetakePolicy, Site

if TYPE_CHECKING:
    from mypy_extensions import i64

    from reference_runtime.gmp import P, Sched
    from reference_runtime.sim.costs import Costs

__all__ = ["OraclePolicy", "handoff_cost_ns", "oracle_site"]


class OraclePolicy(RetakePolicy):
    """Each call's site says what the call will do, and is believed; nothing is ever retaken."""

    name = "oracle"

    def mode(self, site: Site) -> i64:
        """What the site says."""
        return site.hint

    def wanted(self, sched: Sched, p: P, now_ns: i64) -> i64:  # noqa: ARG002
        """Nothing to take back: who keeps his P returns soon."""
        return NOT_YET


def handoff_cost_ns(costs: Costs) -> int:
    """What it takes on a machine until a P that is handed off runs again: another M woken."""
    return costs.wake_call_ns + costs.wakeup_ns + costs.context_switch_ns


def oracle_site(name: str, block_ns: int | None, costs: Costs) -> Site:
    """The site of one call: block exactly if the call blocks for longer than a handoff costs.

    Args:
        name: what reports call it.
        block_ns: how long it will block; None if it will not.
        costs: of the machine.
    """
    blocks = block_ns is not None and block_ns > handoff_cost_ns(costs)
    return Site(name, BLOCK if blocks else RAW)
