"""A trace with its analyses as methods: what ``analysis.load`` returns."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis.episodes import episodes
from analysis.summary import Summary, summary
from analysis.validate import validate
from analysis.witness import Check, check
from tracer.manifest import Manifest
from tracer.trace import Trace

__all__ = ["LoadedTrace", "load"]


def load(path: str | Path) -> LoadedTrace:
    """Open a trace for analysis.

    Args:
        path: the folder that ``pretake record`` wrote.

    Raises:
        PretakeError: it is no trace, or one that cannot be trusted.
    """
    return LoadedTrace(Trace(path))


class LoadedTrace:
    """A trace and what it means. Tables are made when they are asked for first, and kept.

    Args:
        trace: the trace.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    @property
    def manifest(self) -> Manifest:
        """What the trace says of itself."""
        return self.trace.manifest

    def frame(self, table: str) -> pd.DataFrame:
        """One of the trace's own tables (:data:`tracer.schema.TABLES`) as a DataFrame."""
        return self.trace.frame(table)

    def episodes(self) -> pd.DataFrame:
        """Each call that blocked with a P: a DataFrame of :data:`analysis.schema.EPISODES`."""
        return self._episodes.copy()

    def summary(self) -> Summary:
        """The figures of the whole trace (:class:`analysis.summary.Summary`)."""
        return summary(self.trace)

    def validate(self) -> pd.DataFrame:
        """Each rule of the model, and how the trace keeps it (:mod:`analysis.validate`)."""
        return validate(self.trace)

    def check(self, witness: str | Path) -> Check:
        """The trace against the runtime's own record (:mod:`analysis.witness`)."""
        return check(self.trace, witness)

    @cached_property
    def _episodes(self) -> pd.DataFrame:
        return episodes(self.trace)
