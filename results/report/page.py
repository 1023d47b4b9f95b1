"""The report as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import jinja2
import optuna
from markupsafe import Markup, escape

from files_and_text.atomic_files import atomic_write
from results.charts.page_parts import chart_css, hover_script
from results.charts.styles import STYLES
from results.report.blocks import Section
from results.report.facts import ReportFacts, read_facts
from results.report.header import header_lines
from results.report.sections.answer import answer_section
from results.report.sections.charts import curves_section, embedding_section, importance_section
from results.report.sections.data_account import data_section
from results.report.sections.details import details_section
from results.report.sections.early_ends import early_ends_section
from results.report.sections.next_steps import next_steps_section
from results.report.sections.parameters import parameters_section
from results.report.sections.samples import samples_section
from results.report.sections.stability_signs import signs_section
from results.verdict.verdict import Verdict

REPORT_FILE = "report.html"

SECTIONS: Sequence[Callable[[ReportFacts], Section | None]] = (
    answer_section,
    next_steps_section,
    parameters_section,
    curves_section,
    embedding_section,
    importance_section,
    samples_section,
    signs_section,
    early_ends_section,
    data_section,
    details_section,
)
"""In the order of the page; a section that has nothing to show is None."""

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
    """The whole page; it needs no script to be read."""
    scripts = [hover_script(), Markup(_read("copy.js"))]
    page = _environment().get_template("report.html.jinja")
    return page.render(
        facts=facts,
        lines=header_lines(facts),
        sections=[section for build in SECTIONS if (section := build(facts)) is not None],
        style=chart_css() + _mark_colors() + Markup(_read("report.css")),
        icon="data:image/svg+xml;base64," + base64.b64encode(_read("icon.svg").encode()).decode(),
        scripts=scripts,
        hashes=[_source_hash(script) for script in scripts],
    )


def _mark_colors() -> Markup:
    """The charts' colors of the best, the guideline default and the base, for tiles and texts."""
    light, dark = (
        "".join(f"--{name}:{getattr(STYLES[name], look)};" for name in ("best", "default", "base"))
        for look in ("light", "dark")
    )
    return Markup(f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}")


def _source_hash(script: str) -> str:
    """The hash by which the page's content security policy allows its own scripts and no others."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _breakable(text: str) -> Markup:
    """Text in which long names may break after an underscore or a dot, and 2e-4 or a date may not break."""
    broken = re.sub(r"[\w.]{15,}", lambda name: _with_breaks(name[0]), str(escape(text)))
    return Markup(re.sub(r"(\d[\d.]*e-\d+|\d{4}-\d\d-\d\d)", r'<span class="whole">\1</span>', broken))


def _with_breaks(name: str) -> str:
    return re.sub(r"(?<=\w)([_.])(?=[A-Za-z])", r"\1<wbr>", name)


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
