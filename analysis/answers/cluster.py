"""Many traces at once: here, or on a Dask cluster; on this disk, or on an object store.

One worker makes the result of one trace, with the same code as without a cluster, and the
results are put together in the order of the traces. So they are the same to the bit, however
many workers there are.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd

from analysis.answers.compare import COMPARISON, compare
from tracer.errors import PretakeError
from tracer.trace.reader import Trace

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["compare_all", "fold_places", "map_traces", "opened"]

_Result = TypeVar("_Result")


def compare_all(places: Sequence[str], scheduler: str | None = None) -> pd.DataFrame:
    """The figures of many traces: a DataFrame of :data:`analysis.answers.compare.COMPARISON`.

    Args:
        places: folders, or what fsspec opens (``s3://bucket/host7.pretake``).
        scheduler: address of a Dask scheduler (``tcp://host:8786``); None stays in this process.

    Raises:
        PretakeError: a trace cannot be read, or the scheduler cannot be reached.
    """
    rows = map_traces(_compared, places, scheduler)
    return pd.concat(rows, ignore_index=True) if rows else COMPARISON.finish({})


def map_traces(
    work: Callable[[Trace], _Result], places: Sequence[str], scheduler: str | None = None
) -> list[_Result]:
    """Call ``work`` for each trace, and return the results in their order.

    Args:
        work: a function of a module, so that it can be sent to a worker by name.
        places: as in :func:`compare_all`.
        scheduler: likewise.
    """
    if scheduler is None:
        return [_work_on(place, work) for place in places]
    with _client(scheduler) as client:
        # pure: what a trace gives depends on its files, and those may be others the next time.
        futures = client.map(_work_on, places, work=work, pure=False)
        results: list[_Result] = client.gather(futures)
    return results


def fold_places(
    work: Callable[[Trace], _Result],
    failed: Callable[[str, Exception], _Result],
    merge: Callable[[_Result, _Result], _Result],
    places: Sequence[str],
    scheduler: str | None = None,
) -> _Result | None:
    """One result of all traces, merged two by two; a trace that cannot be read ends nothing.

    Never are there more results than workers and unfinished pairs, wherever they are made.

    Args:
        work: as in :func:`map_traces`.
        failed: the result of a place whose work raised something.
        merge: makes one of two, and may change the first; it must not depend on their order.
        places: as in :func:`compare_all`.
        scheduler: likewise.

    Returns:
        None for no places.
    """
    if scheduler is None:
        told: _Result | None = None
        for place in places:
            one = _tried(place, work=work, failed=failed)
            told = one if told is None else merge(told, one)
        return told
    if not places:
        return None
    with _client(scheduler) as client:
        level = client.map(_tried, places, work=work, failed=failed, pure=False)
        while len(level) > 1:
            # Whatever nobody refers to is forgotten by the workers.
            level = [
                client.submit(_merged, merge, *level[at : at + 2], pure=False)
                for at in range(0, len(level), 2)
            ]
        result: _Result = level[0].result()
    return result


def _client(scheduler: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise PretakeError(
            "work on a cluster needs Dask, which is not installed",
            "pip install 'pretake[cluster]'",
        ) from None
    try:
        return Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise PretakeError(
            f"no Dask scheduler answers at {scheduler} ({type(error).__name__})",
            "start one with 'dask scheduler', and workers with 'dask worker ADDRESS'",
        ) from None


@contextlib.contextmanager
def opened(place: str) -> Iterator[Trace]:
    """A trace from a folder, or, by a copy that lasts as long as this, from an object store.

    Raises:
        PretakeError: it cannot be fetched or read.
    """
    if "://" not in place:
        yield Trace(place)
        return
    try:
        import fsspec
    except ImportError:
        raise PretakeError(
            f"reading {place} needs fsspec, which is not installed",
            "pip install 'pretake[cluster]'",
        ) from None
    with tempfile.TemporaryDirectory(prefix="pretake-") as folder:
        copy = Path(folder) / (place.rstrip("/").rsplit("/", 1)[-1] or "trace")
        try:
            files, root = fsspec.core.url_to_fs(place)
            files.get(root.rstrip("/") + "/", f"{copy}/", recursive=True)
        except Exception as error:  # libraries of stores raise what they like
            raise PretakeError(
                f"cannot fetch {place}: {str(error).splitlines()[0] if str(error) else error!r}",
                "check the address, and the credentials that fsspec finds",
            ) from None
        yield Trace(copy)


def _work_on(place: str, work: Callable[[Trace], _Result]) -> _Result:
    with opened(place) as trace:
        return work(trace)


def _tried(
    place: str,
    work: Callable[[Trace], _Result],
    failed: Callable[[str, Exception], _Result],
) -> _Result:
    try:
        return _work_on(place, work)
    except Exception as error:  # one damaged trace of a thousand is no reason to lose the others
        return failed(place, error)


def _merged(merge: Callable[[_Result, _Result], _Result], *results: _Result) -> _Result:
    # What a worker keeps of another task must stay as it is.
    first, *second = results
    return merge(copy.deepcopy(first), second[0]) if second else first


def _compared(trace: Trace) -> pd.DataFrame:
    return compare([trace])
