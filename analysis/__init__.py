"""From a trace to tables, answers and pictures, with pandas.

Example:
    >>> from analysis import load
    >>> trace = load("demo/sysmon.pretake")
    >>> trace.episodes().groupby("syscall", observed=True)["hold_ns"].median()
    >>> trace.summary()["retake_ns"]["p50"]

Each analysis is a pure function from a trace to a DataFrame (or a dictionary) with a declared
schema. Views (terminal, HTML, exports) only print those, and compute nothing.
"""

from analysis.loaded import LoadedTrace, difference, load

__all__ = ["LoadedTrace", "difference", "load"]
