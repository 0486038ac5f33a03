"""One HTML file that answers, and needs nothing but a browser.

The answer comes first, then distributions, where the latency goes, what the episodes mean, when
and where they happened, and the worst of them with their time lines; how far to trust it comes
last. Every name in it was chosen by strangers: the template escapes text, the pictures' data
are escaped for plotly.js and for the script element they stand in, and the page's content
policy allows no script but the two that it carries, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from analysis.answers.now import process_name
from analysis.formats.export import write_text
from analysis.report import figures, tables
from analysis.report.answer import answer
from analysis.report.budget_figure import budget
from analysis.report.drawing import Picture
from analysis.report.material import Material, Predictor, gather
from analysis.report.time_line_figure import time_line
from analysis.schema import CLASS_MEANINGS
from analysis.units import count_text, duration_text
from tracer.trace.reader import Trace

__all__ = ["render", "report"]


def report(traces: Sequence[Trace], out: str | Path, predict: Predictor | None = None) -> Path:
    """Write a report about one trace, or about several side by side.

    Args:
        traces: at least one.
        out: the HTML file to write; one that is there is replaced as a whole.
        predict: makes the what-if table of a trace; None leaves that part out.

    Returns:
        The file.

    Raises:
        PretakeError: a trace cannot be read, or the file cannot be written.
    """
    out = Path(out)
    # Whoever reads the file meanwhile sees the old one or the new one, never a half.
    write_text(render(gather(traces, predict)), out)
    return out


def render(materials: Sequence[Material]) -> str:
    """The report as the text of one HTML file."""
    pictures: dict[str, Picture] = {
        "budget": budget(materials),
        "retake": figures.distribution(materials, "retake_ns", "P-retake latency"),
        "hold": figures.distribution(materials, "hold_ns", "hold"),
        "parts": figures.parts(materials),
        "classes": figures.class_shares(materials),
        "preemption": figures.preemption(materials),
    }
    several = len(materials) > 1
    sections = []
    for number, material in enumerate(materials):
        pictures[f"heat{number}"] = figures.heat_map(material, len(materials))
        sections.append(
            {
                "label": material.label,
                "heat": f"heat{number}",
                "pressure": tables.pressure(material),
                "places": tables.places(material),
                "worst": _worst(material, number, pictures),
                "advice": tables.advice(material),
                "latency": tables.latency(material),
                "factors": tables.factors(material),
                "whatif": tables.whatif(material),
                "withheld": tables.withheld_columns(material),
                "preemptions": tables.preemptions(material),
                "events": tables.events(material),
                "capture": tables.capture(material),
            }
        )
    pictures = {name: picture for name, picture in pictures.items() if picture["data"]}
    script, plotly = _asset("page.js"), _asset("plotly-basic/plotly-basic.min.js")
    return _template().render(
        answer=answer(materials),
        several=several,
        budget_caption=_budget_caption(materials),
        meanings=CLASS_MEANINGS,
        labels=[material.label for material in materials],
        comparison=tables.comparison(materials),
        parts=tables.parts(materials),
        classes=tables.classes(materials),
        sections=sections,
        pictures=pictures,
        data=jinja2.utils.htmlsafe_json_dumps(pictures),
        css=_asset("page.css"),
        script=script,
        plotly=plotly,
        script_hashes=[_csp_hash(script), _csp_hash(plotly)],
    )


def _budget_caption(materials: Sequence[Material]) -> str:
    """What the first picture shows, so that nobody has to look it up."""
    whole = "100 % is all its Ps (GOMAXPROCS), all of the time"
    processes = [p for m in materials for p in m.budget["processes"][:1]]
    if len(materials) > 1 or not processes:
        return f"Where the P time of each run went: {whole}."
    return f"Where the P time of {process_name(processes[0])} went: {whole}."


def _worst(material: Material, number: int, pictures: dict[str, Picture]) -> list[dict[str, str]]:
    """The worst episodes' headings; their time lines go into ``pictures``."""
    found = []
    for place, episode in enumerate(material.worst.to_dict("records")):
        name = f"worst{number}x{place}"
        lanes = material.lanes[material.lanes["episode"] == place]
        pictures[name] = time_line(lanes, episode)
        found.append({"picture": name, "what": _headline(episode), "detail": _detail(episode)})
    return found


def _headline(episode: Mapping[Any, Any]) -> str:
    if pd.isna(episode["harm_ns"]) or episode["harm_ns"] == 0:
        length = f"P held for {duration_text(episode['hold_ns'])}"
    else:
        length = f"work waited {duration_text(episode['harm_ns'])}"
    p = "" if pd.isna(episode["p"]) else f" P {episode['p']}"
    return f"{episode['syscall']}:{p} {length}" if p else f"{episode['syscall']}: {length}"


def _detail(episode: Mapping[Any, Any]) -> str:
    """What the runtime looked like at the block, in words."""
    facts = [f"thread {episode['tid']}"]
    if isinstance(episode["comm"], str):
        facts[0] += f" ({episode['comm']})"
    if not pd.isna(episode["goid"]):
        facts.append(f"goroutine {episode['goid']}")
    for column, name in (
        ("runq", "in P's queue"),
        ("global_runq", "in the global queue"),
        ("npidle", "idle Ps"),
    ):
        if not pd.isna(episode[column]):
            facts.append(f"{count_text(episode[column])} {name}")
    outcome = "how it ended is not known" if pd.isna(episode["outcome"]) else episode["outcome"]
    why = "" if pd.isna(episode["reason"]) else f" by {episode['reason']}"
    facts.append(f"{str(outcome).replace('_', ' ')}{why}")
    facts.append(f"class {episode['class']}")
    return ", ".join(facts)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


@cache
def _asset(name: str) -> str:
    return resources.files("analysis.report").joinpath(name).read_text("utf-8")


@cache
def _csp_hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
