"""``raw``: no hooks around a call, as a baseline for the policies that have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mypy_extensions import mypyc_attr

from reference_runtime.policies.base import RAW, RetakePolicy, Site

if TYPE_CHECKING:
    from mypy_extensions import i64


@mypyc_attr(allow_interpreted_subclasses=True)
class RawPolicy(RetakePolicy):
    """The runtime is never told of a call: a thread that blocks keeps its P until it returns."""

    name: ClassVar[str] = "raw"

    def mode(self, site: Site) -> i64:  # noqa: ARG002
        """Always ``RAW``."""
        return RAW
