"""A trace with its analyses as methods: what ``analysis.load`` returns.

An analysis is imported when it is asked for: a command that shows one starts without the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tracer.trace.manifest import Manifest
from tracer.trace.reader import Trace

if TYPE_CHECKING:
    import pandas as pd

    from analysis.answers.budget import Budget
    from analysis.answers.summary import Summary
    from analysis.trust.probes import ProbesCompared
    from analysis.trust.witness import Check
    from analysis.whatif.predict import Replayer

__all__ = ["LoadedTrace", "difference", "load"]


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
        """One of the trace's own tables (:data:`tracer.trace.schema.TABLES`) as a DataFrame."""
        return self.trace.frame(table)

    def episodes(self) -> pd.DataFrame:
        """Each call that blocked with a P: a DataFrame of :data:`analysis.schema.EPISODES`."""
        return self._episodes.copy()

    def episodes_in_pieces(self) -> Iterator[pd.DataFrame]:
        """The same in pieces, for a trace that is larger than memory."""
        from analysis.formats.ordered import in_order
        from analysis.ptime.episodes import episode_windows

        return in_order(episode_windows(self.trace), ("block_ns", "tid"))

    def summary(self) -> Summary:
        """The figures of the whole trace (:class:`analysis.answers.summary.Summary`)."""
        from analysis.answers.summary import summary

        return summary(self.trace)

    def summary_and_budget(self) -> tuple[Summary, Budget]:
        """Both, from one pass over the trace."""
        from analysis.answers.summary import summary_and_budget

        return summary_and_budget(self.trace)

    def budget(self) -> Budget:
        """Where every P-second of each process went (:mod:`analysis.answers.budget`)."""
        from analysis.answers.budget import budget

        return budget(self.trace)

    def validate(self) -> pd.DataFrame:
        """Each rule of the model, and how the trace keeps it (:mod:`analysis.trust.validate`)."""
        from analysis.trust.validate import validate

        return validate(self.trace)

    def check(self, witness: str | Path) -> Check:
        """The trace against the runtime's own record (:mod:`analysis.trust.witness`)."""
        from analysis.trust.witness import check

        return check(self.trace, witness)

    def check_own(self) -> tuple[Check | None, str]:
        """The trace against what Go's own flight recorder gave of the same time, if it is there
        and can be read; else None, and why not (empty where nothing is there)."""
        from analysis.trust.witness import check_own

        return check_own(self.trace)

    def compare_probes(self) -> ProbesCompared:
        """Retakes without a uprobe against those by uprobes (:mod:`analysis.trust.probes`)."""
        from analysis.trust.probes import compare_probes

        return compare_probes(self.trace)

    def sites(self) -> pd.DataFrame:
        """Episodes by call site and call: a DataFrame of :data:`analysis.answers.sites.SITES`."""
        from analysis.answers.sites import sites

        return sites(self._episodes, self._places)

    def places(self) -> pd.DataFrame:
        """The stacks that threads blocked with, by name:
        :data:`analysis.answers.places.PLACES`."""
        return self._places.copy()

    def preemptions(self) -> pd.DataFrame:
        """Each request to stop a goroutine: :data:`analysis.answers.preemptions.PREEMPTIONS`."""
        from analysis.answers.preemptions import preemptions

        return preemptions(self.trace)

    def interrupted_calls(self) -> pd.DataFrame:
        """System calls that SIGURG interrupted:
        :data:`analysis.answers.preemptions.INTERRUPTED`."""
        from analysis.answers.preemptions import interrupted_calls

        return interrupted_calls(self.trace)

    def factors(self) -> pd.DataFrame:
        """What the latency goes with: :data:`analysis.answers.factors.FACTORS`."""
        from analysis.answers.factors import factors

        return factors(self.trace, places=self._places)

    def latency(self) -> pd.DataFrame:
        """The parts of the mean latency: :data:`analysis.answers.latency.LATENCY`."""
        from analysis.answers.latency import decompose_trace

        return decompose_trace(self.trace, self._places)

    def advise(self) -> pd.DataFrame:
        """Which way of calling fits each site: :data:`analysis.answers.advise.ADVICE`."""
        from analysis.answers.advise import advise_trace

        return advise_trace(self.trace, self._places)

    def diff(self, *others: LoadedTrace) -> pd.DataFrame:
        """How runs differ from this one: :data:`analysis.stats.verdict.DIFFERENCE`.

        For a verdict each side wants several runs: :func:`difference`.
        """
        return difference([self], others)

    def whatif(
        self,
        policies: Sequence[str],
        replay: Replayer,
        *,
        procs: int | None = None,
        cpus: int | None = None,
        syscall_cost: float = 1.0,
        limit: int = 20_000,
        one_more: bool = False,
    ) -> pd.DataFrame:
        """The run under other policies: a DataFrame of :data:`analysis.whatif.predict.WHATIF`."""
        from analysis.whatif.predict import whatif

        return whatif(
            self.trace,
            policies,
            replay,
            procs=procs,
            cpus=cpus,
            syscall_cost=syscall_cost,
            limit=limit,
            one_more=one_more,
        )

    @cached_property
    def _episodes(self) -> pd.DataFrame:
        from analysis.ptime.episodes import episodes

        return episodes(self.trace)

    @cached_property
    def _places(self) -> pd.DataFrame:
        from analysis.answers.places import places

        return places(self.trace)


def difference(a: Sequence[LoadedTrace], b: Sequence[LoadedTrace]) -> pd.DataFrame:
    """How the runs ``b`` differ from the runs ``a``, and how sure that is.

    Returns:
        A DataFrame of :data:`analysis.stats.verdict.DIFFERENCE`, a row for each of
        :data:`analysis.answers.runs.FIGURES`.

    Raises:
        PretakeError: a trace cannot be read.
    """
    from analysis.answers.runs import FIGURES, run_of
    from analysis.stats.verdict import judge

    sides = [[run_of(loaded.trace).values for loaded in side] for side in (a, b)]
    return judge(sides[0], sides[1], FIGURES)
