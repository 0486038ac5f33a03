"""``block``: the proposal's SyscallBlock at every call that may block."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mypy_extensions import mypyc_attr

from reference_runtime.policies.base import BLOCK, RAW, RetakePolicy, Site

if TYPE_CHECKING:
    from mypy_extensions import i64


@mypyc_attr(allow_interpreted_subclasses=True)
class BlockPolicy(RetakePolicy):
    """P is handed off before the call. The monitor runs as in Go, and finds nothing to retake."""

    name: ClassVar[str] = "block"

    def mode(self, site: Site) -> i64:
        """Every call that is not marked as one that never blocks."""
        return RAW if site.hint == RAW else BLOCK
