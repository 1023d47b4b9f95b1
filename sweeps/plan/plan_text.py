"""The text of `sweeps plan`: what would run, where each range comes from, and what it would take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from files_and_text.numbers import number, parameters, value_text
from search_spaces import Dimension
from sweeps.plan.blueprint import Blueprint, metric_summary
from sweeps.plan.time_estimate import time_estimate

if TYPE_CHECKING:
    from lora_runner.data import DataNotice


def plan_view(blueprint: Blueprint, matrix_flops: float) -> RenderableType:
    """The plan for a terminal of 80 columns or more; `matrix_flops` is the device's operations per second."""
    study_spec, worker_spec, config = blueprint.study_spec, blueprint.worker_spec, blueprint.config
    search = config.search
    facts = _two_columns(
        ("model", config.model.name),
        (
            "",
            f"{parameters(float(study_spec.context['model_size']))} parameters {blueprint.base_kind}, "
            f"computed in {study_spec.context['compute_dtype']}",
        ),
        ("", blueprint.base_unquantized),
        *_rows("adapters", study_spec.context.get("adapters", ())),
        *_rows("data", data_lines(blueprint)),
        (
            "budget",
            f"{study_spec.trials} trials of {study_spec.context['max_steps']} steps, reported at "
            + ", ".join(f"{percent}%" for percent in study_spec.report_at),
        ),
        *_rows("metric", metric_lines(blueprint)),
        ("search", f"{search.sampler} with pruner {search.pruner}, seed {search.seed}"),
        (
            "seats",
            f"{worker_spec.seats} per worker; estimated peak {blueprint.memory_gib:.2f} of "
            f"{blueprint.memory_available_gib:.1f} GiB{_does_not_fit(blueprint)}",
        ),
        ("", blueprint.memory_reason),
        *_rows("path", blueprint.compute_path),
        ("time", time_estimate(blueprint, matrix_flops)),
    )
    dimensions = study_spec.space.dimensions
    return Group(
        facts,
        space_table(dimensions),
        _heading("Where the ranges come from"),
        sources(dimensions),
        _heading("First trials: the tables' own values"),
        first_trials(blueprint),
        *notes(blueprint),
    )


def _does_not_fit(blueprint: Blueprint) -> str:
    """What to do where the estimated peak exceeds the available memory; empty where it fits."""
    if blueprint.memory_gib <= blueprint.memory_available_gib:
        return ""
    if blueprint.base_gib > blueprint.memory_available_gib:
        remedy = (
            f"the base alone takes {blueprint.base_gib:.2f} GiB at any batch size; use a machine with more "
            "memory, model.device_map: auto over several GPUs, or a smaller base"
        )
    elif blueprint.worker_spec.seats > 1:
        remedy = "lower seats"
    else:
        remedy = (
            "lower per_device_train_batch_size (and raise gradient_accumulation_steps) or data.max_length"
        )
    return f", which does not fit: {remedy}"


def data_lines(blueprint: Blueprint) -> list[Text]:
    """How much data there is, how records became sequences, and what was lost on the way."""
    data = blueprint.data
    return [
        Text(
            f"{len(data.train):,} training examples with {data.train.num_tokens:,} tokens; "
            f"{data.eval.num_target_tokens:,} predicted tokens in the evaluation set"
        ),
        *map(Text, data.train.rendering.sentences()),
        *map(notice_text, data.notices),
    ]


def notice_text(notice: DataNotice) -> Text:
    """A notice as a line for a terminal; a warning is marked as one."""
    return Text(f"warning: {notice.text}", style="yellow") if notice.is_warning else Text(notice.text)


def metric_lines(blueprint: Blueprint) -> list[str]:
    """What the metric decides, on how much it is measured, and when; empty for a sweep without one."""
    summary, metric = metric_summary(blueprint.study_spec), blueprint.study_spec.metric
    if summary is None or metric is None:
        return []
    role = "trials are searched and ranked by it" if metric.objective else "recorded beside the loss"
    num_prompts, measured_at = summary["num_prompts"], summary["measured_at"]
    prompts = f"{num_prompts} {'documents of the task' if metric.is_task else 'evaluation prompts'}"
    if num_prompts < metric.num_prompts:
        prompts += f" (of the {metric.num_prompts} asked for, there are no more)"
    answers = f", answers of at most {metric.max_new_tokens} tokens" if metric.max_new_tokens else ""
    when = "measured at " + ", ".join(f"{percent}%" for percent in measured_at)
    if metric.objective and len(measured_at) == 1 and blueprint.study_spec.search["pruner"] != "none":
        when += ", so no trial is pruned"
    return [
        f"{metric.name} ({metric.direction}): {role}",
        f"{prompts}{answers}; {when}",
        f"measured once on the untouched base; {summary['cache']}",
    ]


def _rows(name: str, lines: Sequence[str | Text]) -> list[tuple[str, str | Text]]:
    """`name` beside the first line only."""
    return [("" if index else name, line) for index, line in enumerate(lines)]


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="italic")


def _two_columns(*rows: tuple[str, str | Text]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in rows:
        # As Text: names of folders and models may hold brackets, which rich would read as markup.
        table.add_row(name, Text(value) if isinstance(value, str) else value)
    return table


def space_table(dimensions: Iterable[Dimension]) -> Table:
    """One line per dimension: the range searched, the tables' range, and the default."""
    table = Table(title="\nSearch space", title_justify="left", box=SIMPLE_HEAD, padding=(0, 2, 0, 0))
    table.add_column("dimension", no_wrap=True)
    for name in ("searched", "tables say", "default"):
        table.add_column(name)
    for d in dimensions:
        says = ", ".join(d.guideline_choices) if d.choices else _range(d.guideline_low, d.guideline_high)
        searched = ", ".join(map(str, d.choices)) if d.choices else _range(d.low, d.high, log=d.log)
        table.add_row(d.name, searched, says, value_text(d.default))
    return table


def _range(low: float | None, high: float | None, *, log: bool = False) -> str:
    if low is None or high is None:
        return ""
    return number(low) if low == high else f"{number(low)} .. {number(high)}" + (" (log)" if log else "")


def sources(dimensions: Iterable[Dimension]) -> Table:
    """The rows that each range came from, its condition and its note."""
    rows = []
    for d in dimensions:
        parts = [", ".join(d.rows) or "no row: the documents are silent"]
        if d.active_when:
            parts.append(f"only where {d.active_when[0]} is {' or '.join(map(str, d.active_when[1]))}")
        rows.append((d.name, "; ".join([*parts, *([d.note] if d.note else [])])))
    return _two_columns(*rows)


def first_trials(blueprint: Blueprint) -> Table:
    """The tables' own values in the order in which they run; after the first, only what differs from it."""
    first, *others = blueprint.study_spec.space.first_trials[: max(1, blueprint.study_spec.trials // 2)]
    rows = [("0", f"{first.label}: " + ", ".join(f"{k} {value_text(v)}" for k, v in first.params.items()))]
    for index, other in enumerate(others, start=1):
        changed = {name: value for name, value in other.params.items() if first.params.get(name) != value}
        # The label names one difference and its row; what had to change with it follows.
        more = [f"{k} {value_text(v)}" for k, v in changed.items() if not other.label.startswith(f"{k} ")]
        rows.append((str(index), "; ".join([other.label, *more])))
    return _two_columns(*rows)


def notes(blueprint: Blueprint) -> list[RenderableType]:
    """Notes on the space as a whole, without those printed with a dimension."""
    space = blueprint.study_spec.space
    told = {dimension.note for dimension in space.dimensions}
    lines = [line for key in ("notes", "dropped") for line in space.context.get(key, ()) if line not in told]
    return [Text(), *(Text(f"- {line}", style="dim") for line in lines)] if lines else []
