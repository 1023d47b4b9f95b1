"""The report as one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePath

import jinja2
import optuna
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from files_and_text.atomic_files import atomic_write
from results.report.blocks import Plot, Section
from results.report.facts import Facts, read_facts
from results.report.palette import IN_THE_DARK
from results.report.plots.curves import curves
from results.report.plots.importance import importance
from results.report.plots.parallel import parallel
from results.report.plots.rates import rates
from results.report.plots.ratio_map import ratio_map
from results.report.plots.timeline import timeline
from results.report.sections.answer import answer
from results.report.sections.data_account import data_account
from results.report.sections.next_steps import next_steps
from results.report.sections.reproduce import reproduce
from results.report.sections.troubles import failures, signs
from results.report.sections.verdicts import verdicts
from results.verdict.verdict import Verdict

REPORT_FILE = "report.html"

SECTIONS: Sequence[Callable[[Facts], Section]] = (
    answer,
    verdicts,
    rates,
    ratio_map,
    curves,
    importance,
    parallel,
    timeline,
    signs,
    failures,
    data_account,
    next_steps,
    reproduce,
)
"""In the order of the page: the answer first."""

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    study: optuna.Study,
    verdict: Verdict | None,
    folder: Path,
    *,
    sweep_file: str = "",
    run_folder: str = "",
    target: int | None = None,
) -> Path:
    """Write `report.html` into `folder`, whole or not at all; return its path.

    `verdict` is what `results.verdict.verdict.verdict` says of the same study, None while it has no trial.
    `sweep_file` is the resolved sweep file's text, `run_folder` the run as a user names it, `target` the
    finished trials wanted. The same study gives the same bytes.
    """
    facts = read_facts(study, verdict, sweep_file=sweep_file, run_folder=run_folder, target=target)
    return atomic_write(folder / REPORT_FILE, render_report(facts))


def render_report(facts: Facts) -> str:
    """The whole page, about 5 MB: plotly.js is most of it."""
    sections = [build(facts) for build in SECTIONS]
    plots = {
        block.id: {"spec": block.spec, "height": block.height}
        for section in sections
        for block in section.blocks
        if isinstance(block, Plot)
    }
    scripts = ([get_plotlyjs()] if plots else []) + [_read("report.js")]
    page = _environment().get_template("report.html.jinja")
    return page.render(
        facts=facts,
        sections=sections,
        model=_shown_model(facts),
        plots=plots,
        dark=IN_THE_DARK,
        style=Markup(_read("report.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=[_source_hash(script) for script in scripts],
    )


def _source_hash(script: str) -> str:
    """By which the page's policy knows its own scripts: any other, however it got in, is not run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _shown_model(facts: Facts) -> str:
    """A hub id as it is, a folder by its last name."""
    name = str(facts.sweep.context.get("model") or "")
    return PurePath(name).name if PurePath(name).is_absolute() else name


def _breakable(text: str) -> Markup:
    """Text that breaks after an underscore or a dot between letters, and never inside 2e-4 or a date."""
    parted = re.sub(r"(?<=\w)([_.])(?=[A-Za-z])", r"\1<wbr>", str(escape(text)))
    return Markup(re.sub(r"(\d[\d.]*e-\d+|\d{4}-\d\d-\d\d)", r'<span class="whole">\1</span>', parted))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment
