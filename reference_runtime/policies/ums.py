"""``ums``: a kernel that calls the scheduler at each block; on the simulated host only."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mypy_extensions import mypyc_attr

from reference_runtime.policies.sched_out import NET_NS, SchedOutPolicy
from reference_runtime.transitions import BY_UMS

if TYPE_CHECKING:
    from mypy_extensions import i64


@mypyc_attr(allow_interpreted_subclasses=True)
class UmsPolicy(SchedOutPolicy):
    """As ``sched_out``, but told by an upcall instead of a record in a ring.

    With User-Managed Concurrency Groups, UMS or Google's switchto, the kernel switches from the
    thread that blocks straight to the scheduler's: on the same CPU, with no wake-up in between.
    Linux has none of them, so this runs on the simulated host only.
    """

    name: ClassVar[str] = "ums"
    upcall: ClassVar[bool] = True

    def __init__(self, net_ns: i64 = NET_NS) -> None:
        super().__init__(net_ns)
        self.reason = BY_UMS
