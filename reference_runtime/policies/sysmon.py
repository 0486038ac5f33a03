"""``sysmon``: a monitor thread polls, as Go does today."""

from __future__ import annotations

from typing import ClassVar

from mypy_extensions import mypyc_attr

from reference_runtime.policies.base import RetakePolicy


@mypyc_attr(allow_interpreted_subclasses=True)
class SysmonPolicy(RetakePolicy):
    """Every call that may block is a normal one, whatever its author says; the monitor retakes."""

    name: ClassVar[str] = "sysmon"
