"""The list of all tables that the analysis makes, for the documentation and the exports."""

from __future__ import annotations

from analysis.answers.advise import ADVICE
from analysis.answers.compare import COMPARISON
from analysis.answers.factors import FACTORS
from analysis.answers.latency import LATENCY
from analysis.answers.places import PLACES
from analysis.answers.preemptions import INTERRUPTED, LEDGER, PREEMPTIONS
from analysis.answers.sites import SITES
from analysis.ptime.timeline import TIMELINE
from analysis.schema import EPISODES, Frame
from analysis.stats.verdict import DIFFERENCE
from analysis.trust.validate import VALIDATION
from analysis.whatif.predict import WHATIF

__all__ = ["FRAMES"]

FRAMES: tuple[Frame, ...] = (
    EPISODES,
    SITES,
    PLACES,
    PREEMPTIONS,
    LEDGER,
    INTERRUPTED,
    LATENCY,
    FACTORS,
    ADVICE,
    WHATIF,
    COMPARISON,
    DIFFERENCE,
    TIMELINE,
    VALIDATION,
)
"""In the order in which a reader meets them."""
