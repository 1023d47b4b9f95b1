"""The watch page as HTML: the whole page once, and its parts each time that they are asked for."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import results
from results.charts.builders.curves import curves_chart
from results.charts.builders.learning_rate import learning_rate_chart
from results.charts.builders.timeline import timeline_chart
from results.charts.page_parts import chart_css, hover_script
from results.charts.svg import svg
from results.text.answer import parameter_sentence, parameter_title
from sweeps.watch.snapshot import Snapshot
from sweeps.watch.words import (
    answer_tiles,
    commands,
    event_lines,
    facts,
    headline_of,
    notices,
    stage_lines,
    state_word,
    sure_of,
    trial_rows,
    unfinished_rows,
)

_TEMPLATES = Path(__file__).parent / "templates"
_REPORT_CSS = Path(results.__file__).parent / "report" / "templates" / "report.css"
PARTS = ("state", "trials", "answer", "charts", "events", "all_trials", "links")
"""Templates of the page's parts, in its order."""


def page(snapshot: Snapshot, *, token: str, server: str) -> str:
    """The whole page; its script asks for the parts again and again.

    `token` allows it to stop the sweep, `server` tells it when another process serves it.
    """
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            snapshot=snapshot,
            parts={name: Markup(html) for name, html in parts(snapshot)["html"].items()},
            title=_title(snapshot),
            token=token,
            server=server,
            style=chart_css() + Markup(_REPORT_CSS.read_text(encoding="utf-8") + _read("watch.css")),
            scripts=scripts(),
            watch_command=f"sweeps watch {shlex.quote(snapshot.run_folder)}",
            run=shlex.quote(snapshot.run_folder),
        )
    )


def parts(snapshot: Snapshot) -> dict[str, Any]:
    """What changes: the title, whether to ask again soon, and the HTML of each part by its name."""
    shown = {
        "snapshot": snapshot,
        "status": snapshot.status,
        "answer": snapshot.answer,
        "is_live": snapshot.is_live,
        "word": state_word(snapshot),
        "facts": facts(snapshot),
        "stages": stage_lines(snapshot),
        "notices": notices(snapshot),
        "unfinished": unfinished_rows(snapshot),
        "headline": headline_of(snapshot),
        "sure": sure_of(snapshot),
        "tiles": answer_tiles(snapshot),
        "commands": commands(snapshot),
        "charts": _charts(snapshot),
        "parameters": _parameters(snapshot),
        "events": event_lines(snapshot),
        "all_trials": trial_rows(snapshot),
    }
    html = {name: _environment().get_template(f"{name}.html.jinja").render(shown).strip() for name in PARTS}
    return {"title": _title(snapshot), "is_live": snapshot.is_live, "html": html}


def scripts() -> list[Markup]:
    """The page's own scripts; its policy allows no others."""
    return [hover_script(), Markup(_read("watch.js"))]


def _title(snapshot: Snapshot) -> str:
    status = snapshot.status
    counts = "" if status is None else f"{status.finished}/{status.target} "
    return f"{counts}{snapshot.name}: {state_word(snapshot).text.lower()}"


def _charts(snapshot: Snapshot) -> list[dict[str, Any]]:
    if snapshot.sweep is None or snapshot.answer is None:
        return []
    builders = (learning_rate_chart, curves_chart, timeline_chart)
    drawn = [build(snapshot.sweep, snapshot.answer) for build in builders]
    return [{"title": c.title, "svg": svg(c), "caption": c.caption} for c in drawn if c is not None]


def _parameters(snapshot: Snapshot) -> list[tuple[str, str]]:
    answer = snapshot.answer
    if answer is None or answer.best is None:
        return []
    return [(parameter_title(one.parameter), parameter_sentence(one, answer)) for one in answer.parameters]


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
