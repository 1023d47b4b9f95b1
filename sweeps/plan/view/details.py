"""`sweeps plan --details`: the parts of the memory, the path, the sources of the ranges, the first trials."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from sweeps.plan.blueprint import Blueprint
from sweeps.plan.trial_kinds import first_trials
from sweeps.plan.view.overview import notice_text
from sweeps.plan.view.tables import first_trials_table, rows, sources, two_columns

SEAT = "a seat is a place for one trial; the seats of a worker share one base"


def details(blueprint: Blueprint) -> RenderableType:
    """Everything that the overview leaves out."""
    study_spec, data = blueprint.study_spec, blueprint.data
    search, dimensions = study_spec.search, study_spec.space.dimensions
    percents = ", ".join(f"{percent}%" for percent in study_spec.report_at)
    facts = two_columns(
        ("model", blueprint.config.model.name),
        *rows("seats", [*blueprint.memory_reason.split("; "), SEAT]),
        ("base", f"{blueprint.base_unquantized}; computed in {study_spec.context['compute_dtype']}"),
        *rows("adapters", study_spec.context.get("adapters", ())),
        *rows("path", blueprint.compute_path),
        *rows("records", [*data.train.rendering.sentences()]),
        *rows("", [notice_text(notice) for notice in data.notices if not notice.is_warning]),
        ("evaluated", f"at {percents}, on {data.eval.num_target_tokens:,} predicted tokens"),
        ("search", f"{search['sampler']} with pruner {search['pruner']}, seed {search['seed']}"),
    )
    return Group(
        facts,
        _heading("Where the ranges come from"),
        sources(dimensions),
        _heading("First trials: the tables' own values"),
        first_trials_table(first_trials(study_spec)),
        *notes(blueprint),
    )


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="italic")


def notes(blueprint: Blueprint) -> list[RenderableType]:
    """Notes on the space as a whole, without those printed with a dimension."""
    space = blueprint.study_spec.space
    told = {part for dimension in space.dimensions for part in (dimension.note, *dimension.note.split("; "))}
    lines = [line for key in ("notes", "dropped") for line in space.context.get(key, ()) if line not in told]
    return [Text(), *(Text(f"- {line}", style="dim") for line in lines)] if lines else []
