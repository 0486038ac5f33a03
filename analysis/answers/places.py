"""Where calls were made: the stacks with names, and the call site of each.

Example: ``main.readSlowly`` calls ``syscall.Read``, which calls ``syscall.Syscall``. The call
site is ``main.readSlowly``: the innermost function that does not belong to ``runtime``,
``syscall``, ``internal/…``, ``os`` or ``golang.org/x/sys/unix``, since every system call goes
through those. If all functions of a stack belong to them, it is the innermost one that has a
name.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.answers.where import PLUMBING, RUNTIME_WAITS
from analysis.schema import Field, Frame
from tracer.trace.reader import Trace
from tracer.trace.schema import UNKNOWN

__all__ = ["PLACES", "call_sites", "places", "places_of"]

PLACES = Frame(
    "places",
    "one stack with which threads blocked",
    (
        Field("stack_id", "the stack; as in table block"),
        Field("site", "function that is the call site", "str"),
        Field("file", "source file of the call there", "str"),
        Field(
            "line",
            "its line; for code that was inlined in a stripped program, the line of that code",
        ),
        Field(
            "runtime_wait",
            "whether the runtime itself sleeps there, whichever function of the program is below",
            "bool",
        ),
        Field("stack", "all functions, outermost first, with ; between", "str"),
    ),
)

_NAMELESS = "?"


def places(trace: Trace) -> pd.DataFrame:
    """The stacks of a trace, by name.

    Returns:
        A DataFrame of :data:`PLACES`; empty where no stack was captured.

    Raises:
        PretakeError: the trace cannot be read.
    """
    return places_of(trace.frame("stack"), trace.frame("address"))


def places_of(stacks: pd.DataFrame, addresses: pd.DataFrame) -> pd.DataFrame:
    """The same from the tables stack and address.

    Args:
        stacks: stack_id, pid, generation, pc and depth of each frame.
        addresses: function, file and line by pid, generation and pc.
    """
    # A process is another program after each exec, and one address then another place.
    place = ["pid", "generation", "pc"]
    stacks, addresses = (
        table.assign(generation=table["generation"].fillna(UNKNOWN).astype(np.int64))
        for table in (stacks, addresses)
    )
    frames = stacks.merge(addresses.drop_duplicates(place), on=place, how="left")
    frames = frames.sort_values(["stack_id", "depth"], kind="stable").reset_index(drop=True)
    # What separates frames must not come out of a name.
    names = frames["function"].astype(object).where(frames["function"].notna(), _NAMELESS)
    names = names.astype(str).str.replace(r"[;\s]", "_", regex=True)
    plumbing = names.str.match(PLUMBING) | names.eq(_NAMELESS)
    # 0 for the first candidates, 1 for what is named at all, 2 for the rest; innermost first.
    rank = np.where(~plumbing, 0, np.where(names.eq(_NAMELESS), 2, 1))
    order = frames.assign(name=names, rank=rank).sort_values(
        ["stack_id", "rank", "depth"], kind="stable"
    )
    sites = order.drop_duplicates("stack_id").set_index("stack_id")
    innermost = frames.assign(name=names)[names.ne(_NAMELESS)].drop_duplicates("stack_id")
    waits = innermost.set_index("stack_id")["name"].reindex(sites.index).fillna("")
    outermost_first = frames.assign(name=names).iloc[::-1]
    texts = outermost_first.groupby("stack_id")["name"].agg(";".join)
    nameless = sites["rank"].eq(2)
    return PLACES.finish(
        {
            "stack_id": sites.index.to_numpy(np.int64),
            "site": sites["name"].astype(object).mask(nameless, None).to_numpy(object),
            "file": sites["file"].astype(object).mask(sites["file"].isna(), None).to_numpy(),
            "line": sites["line"].astype("Int64").to_numpy(np.int64, na_value=-1),
            "runtime_wait": (
                waits.str.startswith(RUNTIME_WAITS) | sites["name"].str.startswith(RUNTIME_WAITS)
            ).to_numpy(bool),
            "stack": texts.reindex(sites.index).to_numpy(object),
        }
    )


def call_sites(episodes: pd.DataFrame, places: pd.DataFrame | None) -> pd.Series[str]:
    """What to call the site of each episode: ``read at main.load``.

    Args:
        episodes: syscall and stack_id of :data:`analysis.schema.EPISODES`.
        places: the trace's stacks by name; those of one call site are one site. Without them each
            stack is one site.
    """
    stack = episodes["stack_id"]
    site = episodes["syscall"].fillna("unknown").astype(object)
    at = "stack " + stack.astype(str).astype(object)
    if places is not None:
        named = stack.map(places.set_index("stack_id")["site"].astype(object)).astype(object)
        at = at.where(named.isna(), named)
    return site.where(stack.isna(), site + " at " + at).astype("str")
