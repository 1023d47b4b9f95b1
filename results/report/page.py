"""The report as one self-contained HTML file."""

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
from results.report.colors_and_marks import DARK_COLORS
from results.report.facts import ReportFacts, read_facts
from results.report.plots.embedding_ratio_map import embedding_ratio_section
from results.report.plots.importance import importance_section
from results.report.plots.learning_curves import learning_curves_section
from results.report.plots.learning_rates import learning_rates_section
from results.report.plots.parallel_coordinates import parallel_coordinates_section
from results.report.plots.seat_timeline import timeline_section
from results.report.sections.answer import answer_section
from results.report.sections.data_account import data_section
from results.report.sections.early_ends import early_ends_section
from results.report.sections.guideline_verdicts import verdicts_section
from results.report.sections.next_steps import next_steps_section
from results.report.sections.reproduce import reproduce_section
from results.report.sections.stability_signs import signs_section
from results.verdict.verdict import Verdict

REPORT_FILE = "report.html"

SECTIONS: Sequence[Callable[[ReportFacts], Section]] = (
    answer_section,
    verdicts_section,
    learning_rates_section,
    embedding_ratio_section,
    learning_curves_section,
    importance_section,
    parallel_coordinates_section,
    timeline_section,
    signs_section,
    early_ends_section,
    data_section,
    next_steps_section,
    reproduce_section,
)
"""In the order of the page."""

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

    `verdict` is that of `results.verdict.verdict.verdict` on the same study, None while it has no trial.
    `sweep_file` is the resolved sweep file's text, `run_folder` the run as on the command line, `target` the
    number of finished trials that the sweep asks for. The same study gives the same bytes.
    """
    facts = read_facts(study, verdict, sweep_file=sweep_file, run_folder=run_folder, target=target)
    return atomic_write(folder / REPORT_FILE, render_report(facts))


def render_report(facts: ReportFacts) -> str:
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
        dark=DARK_COLORS,
        style=Markup(_read("report.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=[_source_hash(script) for script in scripts],
    )


def _source_hash(script: str) -> str:
    """The hash by which the page's content security policy allows its own scripts and no others."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _shown_model(facts: ReportFacts) -> str:
    """A hub id as it is; of a folder only the last part."""
    name = str(facts.sweep.context.get("model") or "")
    return PurePath(name).name if PurePath(name).is_absolute() else name


def _breakable(text: str) -> Markup:
    """Text whose lines may break after an underscore or a dot between letters, but not in 2e-4 or a date."""
    broken = re.sub(r"(?<=\w)([_.])(?=[A-Za-z])", r"\1<wbr>", str(escape(text)))
    return Markup(re.sub(r"(\d[\d.]*e-\d+|\d{4}-\d\d-\d\d)", r'<span class="whole">\1</span>', broken))


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
