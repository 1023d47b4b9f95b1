"""The verdicts on a published table as a Markdown page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files_and_text.atomic_files import atomic_write, atomic_write_json
from files_and_text.numbers import loss, number, plural, value_text
from results.comparison.constants import MARGIN
from results.published.decide import Bracket, ModelVerdict
from results.published.table import PublishedTable
from results.render.markdown import bullets, literal, table
from results.text.comparisons import band_text, effect_text, word_text
from results.text.conditions import shown_conditions
from results.text.limitations import limitation_text
from results.text.values import conjunction, shown_range
from results.verdict.row_verdict import RowVerdict
from results.words.words import CLAIMS, WORDS


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Rows that give the same learning rate, and their verdicts on every model that they are about."""

    value: str
    rows: tuple[str, ...]
    boundary: bool
    found: Sequence[tuple[ModelVerdict, RowVerdict]]


def advice_of(verdicts: Sequence[ModelVerdict]) -> list[Advice]:
    """The tested rows of all models, grouped by value, in the order of the guidelines."""
    grouped: dict[tuple[str, bool, str], dict[str, Any]] = {}
    for model in verdicts:
        for row in model.verdict.rows:
            if not row.is_tested or row.row.parameter != "learning_rate" or row.row.topic == "stability":
                continue
            # A row for one model size is about few models: not grouped with the same value for all sizes.
            about = row.row.id if row.row.when.limits_size else ""
            key = (shown_range(row.row), row.row.topic == "boundary", about)
            group = grouped.setdefault(key, {"rows": {}, "found": {}})
            group["rows"][row.row.id] = None
            group["found"].setdefault(model.model, (model, row))
    return [
        Advice(value=value, rows=tuple(g["rows"]), boundary=boundary, found=list(g["found"].values()))
        for (value, boundary, _), g in grouped.items()
    ]


def published_page(
    read: PublishedTable, verdicts: Sequence[ModelVerdict], *, margin: float = MARGIN, about: str = ""
) -> str:
    """The answer, the models, every value on every model, the evidence and the limitations."""
    advices = advice_of(verdicts)
    tried = ("model", "size", "best", "loss", "band", "runs", "configs", "run twice")
    parts = [
        f"# The guideline's learning rates on {literal(read.name)}",
        about,
        bullets(_answers(read, verdicts, advices, margin)),
        f"## Models\n\n{_MODELS}\n\n{table(tried, map(_model_cells, verdicts))}",
        f"## Every value on every model\n\n{_VALUES}\n\n{_pivot(verdicts, advices)}",
        f"## What it rests on\n\n{_EVIDENCE}\n\n"
        + table(("model", "tried", "against the best", "runs"), _evidence(verdicts)),
        "## Limits\n\n" + bullets([*_limits(verdicts), *read.left_out]),
        "## Conditions beside the rows' own\n\n" + bullets(_conditions(advices)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_MODELS = (
    "Loss in nats per token, the mean where a config was run more than once. The band holds the rates tried "
    "within the margin of the best, with any of the other settings."
)
_VALUES = (
    "Everything else as in the model's best config; costs in percent of the best's loss. Of a range the end "
    "towards the best counts. A value that was not tried costs no less than the tried one towards the best "
    "and no more than the one beyond, if the loss falls and then rises with the rate; when the one towards "
    "the best is the best, only the upper bound is known. Empty: the row is not about such a model."
)
_EVIDENCE = (
    "Only tried rates that a verdict rests on. In brackets the interval, corrected for all pairs of rates."
)


def write_published(page: str, data: dict[str, Any], stem: Path) -> tuple[Path, Path]:
    """Write STEM.json and STEM.md, each whole; return their paths."""
    return (
        atomic_write_json(stem.with_name(f"{stem.name}.json"), data),
        atomic_write(stem.with_name(f"{stem.name}.md"), page),
    )


def _answers(
    read: PublishedTable, verdicts: Sequence[ModelVerdict], advices: Sequence[Advice], margin: float
) -> Iterable[str]:
    replicated = [model for model in verdicts if model.noise.spread is not None]
    has = "has" if len(replicated) == 1 else "have"
    yield (
        f"{plural(len(read.runs), 'run')} of {plural(len(verdicts), 'model')}; {len(replicated)} of the "
        f"models {has} configs that were run more than once. Only there a verdict can be more than "
        "undecided; elsewhere a cost is one run against another."
    )
    rates = [float(m.verdict.best.values["learning_rate"]) for m in verdicts if m.verdict.best]
    best = [f"{number(rate)} on {plural(n, 'model')}" for rate, n in sorted(Counter(rates).items())]
    yield f"The best rate tried is {conjunction(best)}."
    edges = [m.model for m in verdicts if any(e.dimension == "learning_rate" for e in m.verdict.edges)]
    if edges:
        yield f"It is the last one tried, so the real best may lie beyond, on {_names(edges)}."
    for advice in advices:
        yield _answer(advice, margin)


def _answer(advice: Advice, margin: float) -> str:
    said = []
    for word in WORDS:
        on = [model.model for model, row in advice.found if row.word == word]
        if on and word in CLAIMS:
            said.append(f"{word.replace('_', ' ')} on {_names(on, len(advice.found))}")
    undecided = sum(row.word == "undecided" for _, row in advice.found)
    if undecided:
        said.append(f"undecided on {plural(undecided, 'model')}")
    percent, more, less = 100 * margin, [], []
    for model, row in advice.found:
        cost = model.costs.get(row.row.id)
        if cost is not None and cost.least is not None and cost.least > percent:
            more.append(model.model)
        elif cost is not None and cost.most is not None and cost.most <= percent:
            less.append(model.model)
    costs = [
        f"{kind} {percent:g}% on {_names(on, len(advice.found))}"
        for kind, on in (("more than", more), ("at most", less))
        if on
    ]
    told = f" By the losses alone it costs {'; '.join(costs)}" if costs else ""
    rest = len(advice.found) - len(more) - len(less)
    if told:
        told += f"; on {plural(rest, 'model')} the rates tried leave that open." if rest else "."
    verb = f", called {(advice.found[0][1].row.direction or '').replace('_', ' ')}" if advice.boundary else ""
    return f"{advice.value}{verb} ({', '.join(advice.rows)}): {'; '.join(said)}.{told}"


def _pivot(verdicts: Sequence[ModelVerdict], advices: Sequence[Advice]) -> str:
    header = ["model", *(_title(advice) for advice in advices)]
    rows = []
    for model in verdicts:
        cells = [_short(model.model)]
        for advice in advices:
            row = next((row for found, row in advice.found if found is model), None)
            cost = None if row is None else model.costs.get(row.row.id)
            cells.append("" if row is None else f"{word_text(row)}, {bracket_text(cost)}")
        rows.append(cells)
    return table(header, rows)


def bracket_text(cost: Bracket | None) -> str:
    """`+1.20%`, `+1.00% to +2.00%`, or the one bound that is known."""
    if cost is None:
        return "cost unknown"
    if cost.least is None or cost.most is None:
        if cost.least is None and cost.most is None:
            return "not known"
        return f"at most {cost.most:+.2f}%" if cost.least is None else f"at least {cost.least:+.2f}%"
    if math.isclose(cost.least, cost.most):
        return f"{cost.least:+.2f}%"
    return f"{cost.least:+.2f}% to {cost.most:+.2f}%"


def _title(advice: Advice) -> str:
    about = f" ({advice.rows[0]})" if len(advice.rows) == 1 else ""
    return f"{advice.value}{about}"


def _evidence(verdicts: Sequence[ModelVerdict]) -> Iterable[tuple[str, ...]]:
    for model in verdicts:
        runs = {config.name: len(config.losses) for config in model.configs}
        found = {row.comparison.arm: row.comparison for row in model.verdict.rows if row.comparison}
        for name, comparison in found.items():
            both = f"{runs.get(name, 0)} and {runs.get(comparison.other, 0)}"
            yield _short(model.model), name, effect_text(comparison), both


def _limits(verdicts: Sequence[ModelVerdict]) -> Iterable[str]:
    alone = [model.model for model in verdicts if model.noise.spread is None]
    if alone:
        yield f"Nothing up to the best rate was run twice, so noise is unknown there: {_names(alone)}."
    for model in verdicts:
        if model.noise.spread is not None:
            yield f"{_short(model.model)}: {limitation_text(model.verdict.limitations[0])}"
    yield (
        "The best config was chosen by these very losses, the lowest of several noisy ones; the intervals "
        "allow for that, the costs without an interval do not."
    )


def _conditions(advices: Sequence[Advice]) -> Iterable[str]:
    found = [
        condition
        for advice in advices
        for _, row in advice.found
        for condition in shown_conditions(row.measurement.conditions)
    ]
    differing = dict.fromkeys((c.name, c.here, c.row) for c in found if c.differs)
    for name, ours, theirs in differing:
        yield f"{name}: {ours} here, {theirs} in the rows that say it."
    for name in dict.fromkeys(c.name for c in found):
        said = [c for c in found if c.name == name]
        if not any(c.here for c in said):
            yield f"{name}: not recorded here."
        elif not any(c.row for c in said):
            here = conjunction(list(dict.fromkeys(c.here for c in said)))
            yield f"{name}: {here} here; the rows do not say."


def _model_cells(model: ModelVerdict) -> tuple[str, ...]:
    verdict, best = model.verdict, model.verdict.best
    size = verdict.context.get("model_size")
    band = next((row.band for row in verdict.rows if row.band is not None), None)
    return (
        model.model,
        "not in its name" if size is None else f"{number(size / 1e9)}B",
        ""
        if best is None
        else ", ".join(f"{name} {value_text(value)}" for name, value in best.values.items()),
        "" if best is None else loss(best.eval_loss),
        "" if band is None else band_text(band),
        str(sum(len(config.losses) for config in model.configs)),
        str(len(model.configs)),
        str(sum(len(config.losses) > 1 for config in model.configs)),
    )


def _names(models: Sequence[str], of: int = 0) -> str:
    if len(models) == of > 3:
        return f"all {of} models"
    return conjunction([_short(model) for model in models])


def _short(model: str) -> str:
    return model.rsplit("/", 1)[-1]
