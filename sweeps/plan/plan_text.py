"""`sweeps plan`: what would run, where each range comes from, and what it would take."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from files_and_text.numbers import number
from search_spaces import Dimension
from sweeps.fleet.live_view import duration
from sweeps.plan.blueprint import Blueprint
from sweeps.plan.data_text import data_lines
from sweeps.plan.metric_text import metric_lines

FORWARD_BACKWARD_FLOPS = 4.0
"""Operations per parameter and token of a QLoRA step: forward 2, backward 2 (frozen weights have none)."""
ASSUMED_UTILISATION = 0.35
"""Share of the device's matrix speed that a step is assumed to reach; `plan` says so."""


def plan_view(blueprint: Blueprint, matrix_flops: float) -> RenderableType:
    """The plan for a terminal of 80 columns or more; `matrix_flops` is the device's operations per second."""
    study_spec, worker_spec, config = blueprint.study_spec, blueprint.worker_spec, blueprint.config
    search = config.search
    facts = _two_columns(
        ("model", config.model.name),
        (
            "",
            f"{_count(float(study_spec.context['model_size']))} parameters {blueprint.base_kind}, "
            f"computed in {study_spec.context['compute_dtype']}",
        ),
        ("", blueprint.base_unquantised),
        *(
            ("" if place else "adapters", line)
            for place, line in enumerate(study_spec.context.get("adapters", ()))
        ),
        *(("" if place else "data", line) for place, line in enumerate(data_lines(blueprint))),
        (
            "budget",
            f"{study_spec.trials} trials of {study_spec.context['max_steps']} steps, reported at "
            + ", ".join(f"{percent}%" for percent in study_spec.report_at),
        ),
        *(("" if place else "metric", line) for place, line in enumerate(metric_lines(blueprint))),
        ("search", f"{search.sampler} with pruner {search.pruner}, seed {search.seed}"),
        (
            "seats",
            f"{worker_spec.seats} per worker; estimated peak {blueprint.memory_gib:.2f} of "
            f"{blueprint.memory_available_gib:.1f} GiB"
            + (
                f", which does not fit: {_smaller(blueprint)}"
                if blueprint.memory_gib > blueprint.memory_available_gib
                else ""
            ),
        ),
        ("", blueprint.memory_reason),
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


def _smaller(blueprint: Blueprint) -> str:
    if blueprint.base_gib > blueprint.memory_available_gib:
        return (
            f"the base alone takes {blueprint.base_gib:.2f} GiB, whatever the batch; use a machine with more "
            "memory, model.device_map: auto over several GPUs, or a smaller base"
        )
    if blueprint.worker_spec.seats > 1:
        return "lower seats"
    return "lower per_device_train_batch_size (and raise gradient_accumulation_steps) or data.max_length"


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="italic")


def _two_columns(*rows: tuple[str, str | Text]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, said in rows:
        # As Text: names of folders and models may hold brackets, which rich would read as markup.
        table.add_row(name, Text(said) if isinstance(said, str) else said)
    return table


def _count(number: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def _shown(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def space_table(dimensions: Iterable[Dimension]) -> Table:
    """One line per dimension: what is searched, what the tables say, and their default."""
    table = Table(title="\nSearch space", title_justify="left", box=SIMPLE_HEAD, padding=(0, 2, 0, 0))
    table.add_column("dimension", no_wrap=True)
    for name in ("searched", "tables say", "default"):
        table.add_column(name)
    for d in dimensions:
        says = ", ".join(d.guideline_choices) if d.choices else _range(d.guideline_low, d.guideline_high)
        searched = ", ".join(map(str, d.choices)) if d.choices else _range(d.low, d.high, log=d.log)
        table.add_row(d.name, searched, says, _shown(d.default))
    return table


def _range(low: float | None, high: float | None, *, log: bool = False) -> str:
    if low is None or high is None:
        return ""
    return number(low) if low == high else f"{number(low)} .. {number(high)}" + (" (log)" if log else "")


def sources(dimensions: Iterable[Dimension]) -> Table:
    """The rows that each range came from, and what to know about it."""
    rows = []
    for d in dimensions:
        said = [", ".join(d.rows) or "no row: the documents are silent"]
        if d.active_when:
            said.append(f"only where {d.active_when[0]} is {' or '.join(map(str, d.active_when[1]))}")
        rows.append((d.name, "; ".join([*said, *([d.note] if d.note else [])])))
    return _two_columns(*rows)


def first_trials(blueprint: Blueprint) -> Table:
    """The tables' own values, in the order in which they are tried; after the first, what differs from it."""
    first, *others = blueprint.study_spec.space.first_trials()[: max(1, blueprint.study_spec.trials // 2)]
    rows = [("0", f"{first.label}: " + ", ".join(f"{k} {_shown(v)}" for k, v in first.params.items()))]
    for index, other in enumerate(others, start=1):
        changed = {name: value for name, value in other.params.items() if first.params.get(name) != value}
        # The label names one difference and its row; what had to change with it follows.
        more = [f"{k} {_shown(v)}" for k, v in changed.items() if not other.label.startswith(f"{k} ")]
        rows.append((str(index), "; ".join([other.label, *more])))
    return _two_columns(*rows)


def notes(blueprint: Blueprint) -> list[RenderableType]:
    """What the space was built with that a reader should know, beside what stands with a dimension."""
    space = blueprint.study_spec.space
    told = {dimension.note for dimension in space.dimensions}
    lines = [line for key in ("notes", "dropped") for line in space.context.get(key, ()) if line not in told]
    return [Text(), *(Text(f"- {line}", style="dim") for line in lines)] if lines else []


def time_estimate(blueprint: Blueprint, matrix_flops: float) -> str:
    """An upper estimate: every trial runs its full budget, one worker."""
    study_spec = blueprint.study_spec
    constants = study_spec.constants
    examples = (
        constants["max_steps"]
        * constants["per_device_train_batch_size"]
        * constants["gradient_accumulation_steps"]
    )
    mean = blueprint.num_train_tokens / blueprint.num_train_examples
    size = float(study_spec.context["model_size"])
    train = study_spec.trials * examples * mean * FORWARD_BACKWARD_FLOPS * size
    evaluate = study_spec.trials * len(study_spec.report_at) * blueprint.num_eval_tokens * 2 * 2 * size
    seconds = (train + evaluate) / (matrix_flops * ASSUMED_UTILISATION)
    beside = "starting up" + ("" if study_spec.metric is None else " and measuring the metric")
    return (
        f"about {duration(seconds)} on one worker if nothing is pruned, beside {beside} (estimate: "
        f"{matrix_flops / 1e12:.2g} TFLOP/s measured here, {ASSUMED_UTILISATION:.0%} of it used)"
    )


def measure_matrix_flops() -> float:
    """Speed of a large product on this machine's device, in operations per second, within a second."""
    import time

    import torch

    cuda = torch.cuda.is_available()
    n, dtype = (8192, torch.bfloat16) if cuda else (1024, torch.float32)
    a = torch.randn(n, n, device="cuda" if cuda else "cpu", dtype=dtype)
    best = float("inf")
    for _ in range(4):
        if cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        a @ a
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2.0 * n**3 / best
