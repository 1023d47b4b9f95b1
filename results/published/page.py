"""The verdicts on a published table as a Markdown page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from files_and_text.atomic_files import atomic_write, atomic_write_json
from files_and_text.numbers import loss, number, number_range, plural, value_text
from results.comparison.constants import MARGIN
from results.comparison.relation import Relation, relation
from results.published.decide import DEFAULT_ROW, ModelVerdict
from results.published.table import PublishedTable
from results.render.markdown import bullets, literal, table
from results.text.comparisons import band_text, effect_text, word_text
from results.text.conditions import shown_conditions
from results.text.limitations import limitation_text
from results.text.values import conjunction, shown_range
from results.verdict.row_values import TOLERANCE
from results.verdict.row_verdict import RowVerdict
from results.words.words import CLAIMS, WORDS

if TYPE_CHECKING:
    from results.curve_model.best_rate import BestRate


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
    """The answer, what the guidelines' default rate costs, the models, every value on every model, and the
    limitations."""
    advices = advice_of(verdicts)
    tried = ("model", "size", "best", "loss", "best rate by the curve", "band", "runs", "configs")
    has_default = _with_default(verdicts)
    parts = [
        f"# The guideline's learning rates on {literal(read.name)}",
        about,
        bullets(_answers(read, verdicts, advices)),
        _default_section(has_default, margin) if has_default else "",
        f"## Models\n\n{_MODELS}\n\n{table(tried, map(_model_cells, verdicts))}",
        f"## Every value on every model\n\n{_VALUES}\n\n{_pivot(verdicts, advices)}",
        "## Limits\n\n" + bullets([*_limits(verdicts), *read.left_out]),
        "## Conditions beside the rows' own\n\n" + bullets(_conditions(advices)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_MODELS = (
    "Loss in nats per token, the mean where a config was run more than once. The best rate by the curve is "
    "where it is lowest at the best's rank, with 5% beyond each end, between the lowest and the highest rate "
    "tried. The band holds the rates tried within the margin of the best, with any of the other settings."
)
_VALUES = (
    "Everything else as in the model's best config; costs in percent of the best's loss, with the interval "
    "that leaves 5% beyond each end. Of a range the end towards the best counts. Where the best itself lies "
    "in the row, the cost is that of the nearest rate tried outside, or of the row's nearest end where none "
    "was. Without a cost there is no curve (Limits). Empty: the row is not about such a model."
)


def write_published(page: str, data: dict[str, Any], stem: Path) -> tuple[Path, Path]:
    """Write STEM.json and STEM.md, each whole; return their paths."""
    return (
        atomic_write_json(stem.with_name(f"{stem.name}.json"), data),
        atomic_write(stem.with_name(f"{stem.name}.md"), page),
    )


def _answers(
    read: PublishedTable, verdicts: Sequence[ModelVerdict], advices: Sequence[Advice]
) -> Iterable[str]:
    yield f"{plural(len(read.runs), 'run')} of {plural(len(verdicts), 'model')}."
    rates = [float(m.verdict.best.values["learning_rate"]) for m in verdicts if m.verdict.best]
    best = [f"{number(rate)} on {plural(n, 'model')}" for rate, n in sorted(Counter(rates).items())]
    yield f"The best rate tried is {conjunction(best)}."
    for side, which, where in (("high", "highest", "above"), ("low", "lowest", "below")):
        at = [
            m.model
            for m in verdicts
            if any(e.dimension == "learning_rate" and e.side == side for e in m.verdict.edges)
        ]
        if at:
            yield f"It is the {which} one tried, so the real best may lie {where}, on {_names(at)}."
    for advice in advices:
        yield _answer(advice)


def _answer(advice: Advice) -> str:
    said = []
    for word in WORDS:
        on = [model.model for model, row in advice.found if row.word == word]
        if on and word in CLAIMS:
            said.append(f"{word.replace('_', ' ')} on {_names(on, len(advice.found))}")
    undecided = [model.model for model, row in advice.found if row.word == "undecided"]
    if undecided:
        said.append(f"undecided on {_names(undecided, len(advice.found))}")
    verb = f", called {(advice.found[0][1].row.direction or '').replace('_', ' ')}" if advice.boundary else ""
    nearest = [m.model for m, row in advice.found if row.row.id in m.nearest_size]
    of_others = f" As the nearest size: {_names(nearest)}." if nearest else ""
    return f"{advice.value}{verb} ({', '.join(advice.rows)}): {'; '.join(said)}.{of_others}"


def _with_default(verdicts: Sequence[ModelVerdict]) -> list[tuple[ModelVerdict, float]]:
    """The models that the row of the default rate is about, with that rate."""
    return [
        (model, row.row.low)
        for model in verdicts
        for row in model.verdict.rows
        if row.row.id == DEFAULT_ROW and row.is_tested and row.row.low is not None
    ]


def _default_section(found: Sequence[tuple[ModelVerdict, float]], margin: float) -> str:
    rate = number(found[0][1])
    known = [model for model, _ in found if model.default_cost is not None]
    tried = [m.model for m in known if m.default_cost is not None and m.default_cost.arm in m.tried]
    inside = not any(_beyond(model, default) for model, default in found)
    by_curve = f"the cost is read off the curve {'between' if inside else 'through'} the rates tried."
    if len(tried) == len(known):
        where = f"{rate} was tried on all of them."
    elif tried:
        where = f"{rate} was tried on {_names(tried)} alone; elsewhere {by_curve}"
    else:
        where = f"{rate} was tried on none of them: {by_curve}"
    intro = (
        "Against the model's best config, with everything else as there, in percent of its loss; in brackets "
        f"the interval that leaves 5% beyond each end. {where} Where the curve is lowest elsewhere than at "
        "the best tried, the cost against that is higher still."
    )
    lines = [_default_cost(model, default, margin) for model, default in found]
    return f"## What {rate} costs\n\n{intro}\n\n{bullets(lines)}"


def _default_cost(model: ModelVerdict, default: float, margin: float) -> str:
    cost, best = model.default_cost, model.verdict.best
    if cost is None or best is None:
        return f"{_short(model.model)}: not known. {limitation_text(model.verdict.limitations[0])}"
    rate = number(float(best.values["learning_rate"]))
    by_curve = "" if model.best_rate is None else f", by the curve {_best_rate_text(model.best_rate)}"
    if cost.arm == cost.other:
        return f"{_short(model.model)}: it is the best tried{by_curve}."
    meaning = f"{_MEANS[relation(cost, margin)]} {100 * margin:g}%{_beyond(model, default)}"
    return f"{_short(model.model)}: {effect_text(cost)}, {meaning}. The best tried is {rate}{by_curve}."


def _beyond(model: ModelVerdict, rate: float) -> str:
    """That a rate lies beyond all that were tried on this model, where the curve has no run to hold it."""
    tried = [config.rate for config in model.configs]
    if rate > max(tried) * (1 + TOLERANCE):
        return f" (above the highest rate tried, {number(max(tried))})"
    if rate < min(tried) * (1 - TOLERANCE):
        return f" (below the lowest rate tried, {number(min(tried))})"
    return ""


_MEANS: Mapping[Relation, str] = {
    "worse": "costs more than",
    "within": "costs or saves less than",
    "no_worse": "costs less than",
    "better": "saves more than",
    "open": "may cost more or less than",
}


def _pivot(verdicts: Sequence[ModelVerdict], advices: Sequence[Advice]) -> str:
    header = ["model", *(_title(advice) for advice in advices)]
    rows = []
    for model in verdicts:
        cells = [_short(model.model)]
        for advice in advices:
            row = next((row for found, row in advice.found if found is model), None)
            cells.append("" if row is None else _pivot_cell(model, row))
        rows.append(cells)
    return table(header, rows)


def _pivot_cell(model: ModelVerdict, row: RowVerdict) -> str:
    effect, where = effect_text(row.comparison), ""
    if row.comparison is not None and row.row.topic != "boundary" and row.measurement.position == "inside":
        rate = row.comparison.arm.partition(",")[0]
        ends = [f"learning_rate {number(end)}" for end in (row.row.low, row.row.high) if end is not None]
        where = f"{'at its end' if rate in ends else 'outside'}, {rate}: "
    size = " (row of the nearest size)" if row.row.id in model.nearest_size else ""
    return f"{word_text(row)}{f', {where}{effect}' if effect else ''}{size}"


def _title(advice: Advice) -> str:
    about = f" ({advice.rows[0]})" if len(advice.rows) == 1 else ""
    return f"{advice.value}{about}"


def _limits(verdicts: Sequence[ModelVerdict]) -> Iterable[str]:
    yield (
        "Runs that diverged are missing from tables like this one, and the curve does not know of them: at "
        "high rates costs are those of the runs that survived, and above the highest rate tried no word says "
        "that a rate is good enough."
    )
    yield (
        "A word is said where its probability is at least 95%, each for itself: of twenty words one may be "
        "wrong. What all curves share was fitted on 12 published models; docs/published-tables.md checks the "
        "words on models and rates that were hidden from that fit."
    )
    for model in verdicts:
        yield f"{_short(model.model)}: {limitation_text(model.verdict.limitations[0])}"


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
    rate = model.best_rate
    return (
        model.model,
        "not in its name" if size is None else f"{number(size / 1e9)}B",
        ""
        if best is None
        else ", ".join(f"{name} {value_text(value)}" for name, value in best.values.items()),
        "" if best is None else loss(best.eval_loss),
        "" if rate is None else _best_rate_text(rate),
        "" if band is None else band_text(band),
        str(sum(len(config.losses) for config in model.configs)),
        str(len(model.configs)),
    )


def _best_rate_text(rate: BestRate) -> str:
    low, high = (float(f"{end:.2g}") for end in (rate.low, rate.high))
    return number_range(low, high) + (" and more" if rate.open_above else "")


def _names(models: Sequence[str], of: int = 0) -> str:
    if len(models) == of > 3:
        return f"all {of} models"
    return conjunction([_short(model) for model in models])


def _short(model: str) -> str:
    return model.rsplit("/", 1)[-1]
