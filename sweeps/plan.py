"""`sweeps plan`: what would run, where each range comes from, and what it would take."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search_spaces import Dimension
from sweeps.blueprint import Blueprint

FORWARD_BACKWARD_FLOPS = 4.0
"""Operations per parameter and token of a QLoRA step: forward 2, backward 2 (no gradient of the frozen weights)."""
ASSUMED_UTILISATION = 0.35
"""Share of the device's matrix speed that a step is assumed to reach; `plan` says so."""


def plan_view(blueprint: Blueprint, matrix_flops: float) -> RenderableType:
    """The plan for a terminal; `matrix_flops` is the device's measured speed in operations per second."""
    ledger, job, config = blueprint.ledger, blueprint.job, blueprint.config
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    size = float(ledger.context["model_size"])
    facts.add_row("model", f"{config.model.name} ({size / 1e9:.3g} B parameters, NF4, {ledger.context['compute_dtype']})")
    facts.add_row(
        "data",
        f"{blueprint.num_train_examples:,} training examples, {blueprint.num_train_tokens:,} tokens; "
        f"{blueprint.num_eval_tokens:,} predicted tokens in the frozen evaluation set",
    )
    facts.add_row("budget", f"{ledger.trials} trials of {ledger.context['max_steps']} steps, reported at "
                  + ", ".join(f"{p}%" for p in ledger.report_at))
    search = config.search
    facts.add_row("search", f"{search.sampler} with {search.pruner}, seed {search.seed}")
    facts.add_row(
        "seats",
        f"{job.seats} per worker; estimated peak {blueprint.memory_gib:.2f} GiB of "
        f"{blueprint.memory_available_gib:.1f} GiB (estimate)",
    )
    facts.add_row("time", time_estimate(blueprint, matrix_flops))
    return Group(facts, Text(), space_table(ledger.space.dimensions), Text(), first_trials_table(blueprint), *notes(blueprint))


def space_table(dimensions: Iterable[Dimension]) -> Table:
    """One line per dimension: range, the table's own range, and the rows it came from."""
    table = Table(title="Search space", title_justify="left")
    for name in ("dimension", "searched", "tables say", "default", "rows", "note"):
        table.add_column(name, overflow="fold")
    for d in dimensions:
        searched = ", ".join(map(str, d.choices)) if d.choices else f"{d.low:g} .. {d.high:g}" + (" (log)" if d.log else "")
        says = "" if d.guideline_low is None else (
            f"{d.guideline_low:g}" if d.guideline_low == d.guideline_high else f"{d.guideline_low:g} .. {d.guideline_high:g}"
        )
        when = f"only with {d.active_when[0]} in {', '.join(map(str, d.active_when[1]))}. " if d.active_when else ""
        default = f"{d.default:g}" if isinstance(d.default, float) else str(d.default)
        table.add_row(d.name, searched, says, default, ", ".join(d.rows), when + (d.note or ""))
    return table


def first_trials_table(blueprint: Blueprint) -> Table:
    """The tables' own values, in the order in which they are tried."""
    table = Table(title="First trials: the tables' own values", title_justify="left")
    for name in ("label", "values"):
        table.add_column(name, overflow="fold")
    for first in blueprint.ledger.space.first_trials()[: max(1, blueprint.ledger.trials // 2)]:
        values = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in first.params.items())
        table.add_row(first.label, values)
    return table


def notes(blueprint: Blueprint) -> list[RenderableType]:
    """What the space was built with that a reader should know."""
    context = blueprint.ledger.space.context
    return [Text(f"- {line}", style="dim") for key in ("notes", "dropped") for line in context.get(key, ())]


def time_estimate(blueprint: Blueprint, matrix_flops: float) -> str:
    """An upper estimate: every trial runs its full budget, one worker."""
    ledger = blueprint.ledger
    constants = ledger.constants
    examples = constants["max_steps"] * constants["per_device_train_batch_size"] * constants["gradient_accumulation_steps"]
    mean = blueprint.num_train_tokens / blueprint.num_train_examples
    size = float(ledger.context["model_size"])
    train = ledger.trials * examples * mean * FORWARD_BACKWARD_FLOPS * size
    evaluate = ledger.trials * len(ledger.report_at) * blueprint.num_eval_tokens * 2 * 2 * size
    seconds = (train + evaluate) / (matrix_flops * ASSUMED_UTILISATION)
    hours = f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.1f} min"
    return (
        f"about {hours} on one worker without pruning (estimate: {matrix_flops / 1e12:.2g} TFLOP/s measured here, "
        f"{ASSUMED_UTILISATION:.0%} of it used)"
    )


def measure_matrix_flops() -> float:
    """Speed of one large product on this machine's device, in operations per second; takes a fraction of a second."""
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
