"""Every table that the analysis makes: what the documentation and the exports go through."""

from __future__ import annotations

from analysis.advise import ADVICE
from analysis.compare import COMPARISON
from analysis.diff import DIFFERENCE
from analysis.factors import FACTORS
from analysis.places import PLACES
from analysis.preemptions import INTERRUPTED, LEDGER, PREEMPTIONS
from analysis.schema import EPISODES, Frame
from analysis.sites import SITES
from analysis.timeline import TIMELINE
from analysis.validate import VALIDATION
from analysis.whatif import WHATIF

__all__ = ["FRAMES"]

FRAMES: tuple[Frame, ...] = (
    EPISODES,
    SITES,
    PLACES,
    PREEMPTIONS,
    LEDGER,
    INTERRUPTED,
    FACTORS,
    ADVICE,
    WHATIF,
    COMPARISON,
    DIFFERENCE,
    TIMELINE,
    VALIDATION,
)
"""In the order in which a reader meets them."""
