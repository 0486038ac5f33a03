"""What it means: pandas over a trace.

Example:
    >>> from analysis import load
    >>> trace = load("demo/sysmon.pretake")
    >>> trace.episodes().groupby("syscall", observed=True)["hold_ns"].median()
    >>> trace.summary()["retake_ns"]["p50"]

Each analysis is a pure function from a trace to a DataFrame (or a dictionary) with a declared
schema; views (terminal, HTML, exports) only render those.
"""

from analysis.loaded import LoadedTrace, load

__all__ = ["LoadedTrace", "load"]
