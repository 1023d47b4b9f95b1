"""Verdicts on a published table: one set per model, by the rules that a sweep's own trials are judged by."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from files_and_text.numbers import number, plural
from results.published.pooled_noise import NOISE_GUARD, Config, PooledNoise, compare_pooled, pooled_noise
from results.published.table import PublishedRun, PublishedTable
from results.sweep_result import SweepResult, TrialResult
from results.verdict.distances import TOLERANCE, holds_value
from results.verdict.row_verdict import RowVerdict
from results.verdict.statistics import ALPHA, MARGIN, Comparison
from results.verdict.verdict import Verdict, judge_sweep
from results.verdict.words import Side, Word, combine, decide, decide_boundary, decide_region, rests_on
from search_spaces import Dimension, Guidelines
from search_spaces.dimension import Value

_SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)b\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """What a row's value costs in percent of the best's loss; equal ends where it was tried itself.

    Between two tried rates it costs no less than the one towards the best and no more than the one beyond, if
    the loss falls and then rises with the rate. `least` is None when that one is the best itself, as a value
    between may be better still; `most` when nothing was tried beyond.
    """

    least: float | None
    most: float | None

    def __str__(self) -> str:
        if self.least is None or self.most is None:
            if self.least is None and self.most is None:
                return "not known"
            return f"at most {self.most:+.2f}%" if self.least is None else f"at least {self.least:+.2f}%"
        if math.isclose(self.least, self.most):
            return f"{self.least:+.2f}%"
        return f"{self.least:+.2f}% to {self.most:+.2f}%"


@dataclass(frozen=True, kw_only=True)
class ModelVerdict:
    """What a published table says about one of its models."""

    model: str
    verdict: Verdict
    configs: Sequence[Config]
    noise: PooledNoise
    """Of configs up to the best's rate."""
    costs: Mapping[str, Bracket]
    """Row -> what its value costs; rows that nothing in the table bears on are absent."""


def size_from_name(model: str) -> float | None:
    """Number of parameters that a model's name states (`Llama-3.1-8B`: 8e9; of a mixture the whole), or
    None."""
    found = _SIZE.search(model.rsplit("/", 1)[-1])
    return None if found is None else float(found.group(1)) * 1e9


def judge_table(
    table: PublishedTable,
    guidelines: Guidelines,
    context: Mapping[str, Any],
    *,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> list[ModelVerdict]:
    """One verdict set per model of the table, in its order; `context` holds the conditions common to all
    runs.

    Every config is one trial with the mean of its runs. Words need a config of that model that was run more
    than once. Each row is tried with everything else at the best; a row between two tried rates is judged by
    those, if the loss falls and then rises with the rate.
    """
    return [_judge_model(model, table, guidelines, context, margin, alpha) for model in table.models]


def _judge_model(
    model: str,
    table: PublishedTable,
    guidelines: Guidelines,
    context: Mapping[str, Any],
    margin: float,
    alpha: float,
) -> ModelVerdict:
    configs = _configs([run for run in table.runs if run.model == model])
    size = context.get("model_size") or size_from_name(model)
    here = {**context, "model": model} | ({} if size is None else {"model_size": size})
    sweep = SweepResult(
        name=model,
        metric="eval_loss",
        trials=[
            TrialResult(number=index, values=dict(c.values), eval_loss=c.mean, outcome="complete")
            for index, c in enumerate(configs)
        ],
        dimensions=_dimensions(configs),
        guidelines=list(guidelines.values()),
        context=here,
    )
    judged = judge_sweep(sweep, margin=margin)
    best = min(configs, key=lambda config: config.mean)
    peers = {c.rate: c for c in configs if _others(c) == _others(best)}
    pairs = sum(math.comb(n, 2) for n in _sizes(configs))
    compared = {
        rate: compare_pooled(
            config,
            best,
            configs,
            comparisons=max(1, pairs),
            alpha=alpha,
            loss_step=table.loss_step,
        )
        for rate, config in peers.items()
        if rate != best.rate
    }
    costs: dict[str, Bracket] = {}
    rows = []
    for row in judged.rows:
        word, comparison, cost = _decide(row, best.rate, compared, margin)
        if cost is not None:
            costs[row.row.id] = cost
        rows.append(replace(row, verdict=word, comparison=comparison))
    noise = pooled_noise(configs, up_to_rate=best.rate, loss_step=table.loss_step)
    verdict = replace(judged, rows=rows, caveats=[_about_noise(noise, pairs, alpha), *judged.caveats[2:]])
    return ModelVerdict(model=model, verdict=verdict, configs=configs, noise=noise, costs=costs)


def _decide(
    found: RowVerdict, best_rate: float, compared: Mapping[float, Comparison], margin: float
) -> tuple[Word, Comparison | None, Bracket | None]:
    """Word, the comparison it rests on, and what the row's value costs cost in percent."""
    row = found.row
    if not found.is_tested or row.parameter != "learning_rate" or row.low is None or row.high is None:
        return found.verdict, None, None
    sides: dict[float, Side] = {rate: "above" if rate > best_rate else "below" for rate in compared}
    inside = [rate for rate in sorted(compared) if holds_value(row, rate)]
    if row.topic == "boundary":
        words = [
            decide_boundary(compared[r], direction=row.direction or "too_high", side=sides[r], margin=margin)
            for r in inside
        ]
        return (
            (combine(words), compared[inside[0]], _exactly(compared[inside[0]]))
            if words
            else ("undecided", None, None)
        )
    rates = sorted([*compared, best_rate])
    if holds_value(row, best_rate):
        lower = max((r for r in rates if r < row.low and r not in inside), default=None)
        upper = min((r for r in rates if r > row.high and r not in inside), default=None)
        outside = [r for r in (lower, upper) if r is not None]
        word = decide_region(
            [(sides[r], compared[r]) for r in outside],
            [(sides[r], compared[r]) for r in inside],
            margin=margin,
        )
        shown = [compared[r] for r in [*outside, *inside]]
        return word, rests_on(word, shown, margin), Bracket(least=0.0, most=0.0)
    # Of a range the end towards the best is the cheapest, if the loss falls and then rises with the rate.
    side: Side = "below" if row.high < best_rate else "above"
    end = row.high if side == "below" else row.low
    tried = next((r for r in compared if math.isclose(r, end, rel_tol=TOLERANCE)), None)
    if tried is not None:
        return decide(compared[tried], side=side, margin=margin), compared[tried], _exactly(compared[tried])
    lower = max((r for r in rates if r < end), default=None)
    upper = min((r for r in rates if r > end), default=None)
    near, far = (upper, lower) if side == "below" else (lower, upper)
    return _bracketed(near, far, side, best_rate, compared, margin)


def _bracketed(
    near: float | None,
    far: float | None,
    side: Side,
    best_rate: float,
    compared: Mapping[float, Comparison],
    margin: float,
) -> tuple[Word, Comparison | None, Bracket | None]:
    """A value between two tried rates: no better than the one towards the best, no worse than the one
    beyond."""
    if near is None:
        return "undecided", None, None
    cost = Bracket(
        least=None if near == best_rate else _percent(compared[near]),
        most=None if far is None else _percent(compared[far]),
    )
    if near != best_rate:
        word = decide(compared[near], side=side, margin=margin)
        if word in ("too_low", "too_high"):
            return word, compared[near], cost
    if far is None:
        return "undecided", None, cost
    word = decide(compared[far], side=side, margin=margin)
    same = word in ("no_difference", "supported")
    return "no_difference" if same else "undecided", compared[far], cost


def _exactly(comparison: Comparison) -> Bracket:
    return Bracket(least=_percent(comparison), most=_percent(comparison))


def _percent(comparison: Comparison) -> float:
    return comparison.percent(comparison.effect) or 0.0


def _about_noise(noise: PooledNoise, pairs: int, alpha: float) -> str:
    if noise.spread is None:
        return "No config of this model up to its best rate was run twice: noise is unknown there."
    twice = plural(noise.groups, "config")
    return (
        f"Noise from {twice} run more than once, with {noise.degrees} degrees of freedom: {noise.spread:.5f} "
        f"nats a run, at rates up to {number(noise.highest_rate)}. This model's intervals hold together for "
        f"all {pairs} pairs of rates at {100 * (1 - alpha):g}%, if noise is alike in all configs (taken "
        f"{NOISE_GUARD:g} times as large above rates that were run twice)."
    )


def _configs(runs: Sequence[PublishedRun]) -> list[Config]:
    grouped: dict[tuple[tuple[str, Value], ...], list[float]] = {}
    for run in runs:
        grouped.setdefault(tuple(sorted(run.values.items())), []).append(run.eval_loss)
    return [
        Config(name=_name(dict(key)), values=dict(key), losses=tuple(losses))
        for key, losses in grouped.items()
    ]


def _name(values: Mapping[str, Value]) -> str:
    return ", ".join(
        f"{name} {number(value) if isinstance(value, float) else value}"
        for name, value in sorted(values.items(), key=lambda item: item[0] != "learning_rate")
    )


def _others(config: Config) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted((k, v) for k, v in config.values.items() if k != "learning_rate"))


def _sizes(configs: Sequence[Config]) -> list[int]:
    """Number of rates at every setting of the rest."""
    counts: dict[tuple[tuple[str, Value], ...], int] = {}
    for config in configs:
        counts[_others(config)] = counts.get(_others(config), 0) + 1
    return list(counts.values())


def _dimensions(configs: Sequence[Config]) -> dict[str, Dimension]:
    found = {}
    for name in dict.fromkeys(name for config in configs for name in config.values):
        values = [config.values[name] for config in configs if name in config.values]
        numbers = [value for value in values if not isinstance(value, str)]
        if len(numbers) < len(values):
            choices = tuple(dict.fromkeys(values))
            found[name] = Dimension(name=name, kind="categorical", choices=choices, default=choices[0])
            continue
        low, high = float(min(numbers)), float(max(numbers))
        found[name] = Dimension(name=name, kind="float", low=low, high=high, log=low > 0, default=low)
    return found
