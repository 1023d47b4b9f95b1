"""Verdicts on a published table, one per model, by the same rules as for a sweep."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from results.comparison.constants import ALPHA, MARGIN
from results.comparison.paired import Comparison
from results.published.configs import Config, configs_of, sweep_of
from results.published.pooled_noise import NOISE_GUARD, PooledNoise, compare_pooled, pooled_noise
from results.published.table import PublishedTable
from results.sweep_result import SweepResult
from results.verdict.band import find_edges
from results.verdict.decide import finding_on_sides, row_verdict
from results.verdict.limitations import Limitation, limitations_of
from results.verdict.measure import measure
from results.verdict.row_values import TOLERANCE, holds_value
from results.verdict.verdict import Verdict, assemble
from results.words.word_rules import ComparedValue, Finding, value_word
from results.words.words import Side, Word
from search_spaces import GuidelineRow, Guidelines


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """What a row's value costs in percent of the best's loss; equal ends where it was tried itself.

    Between two tried rates it costs no less than the one towards the best and no more than the one beyond, if
    the loss falls and then rises with the rate. `least` is None when that one is the best itself, as a value
    between may be better still; `most` when nothing was tried beyond.
    """

    least: float | None
    most: float | None


@dataclass(frozen=True, kw_only=True)
class ModelVerdict:
    """What a published table says about one of its models."""

    model: str
    verdict: Verdict
    configs: Sequence[Config]
    noise: PooledNoise
    """Noise of the configs up to the best's rate."""
    costs: Mapping[str, Bracket]
    """Row -> what its value costs; without rows that no run of the table tests."""


class _Decision(NamedTuple):
    word: Word
    comparison: Comparison | None = None
    """What the word rests on."""
    cost: Bracket | None = None


def judge_table(
    table: PublishedTable,
    guidelines: Guidelines,
    context: Mapping[str, Any],
    *,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> list[ModelVerdict]:
    """One verdict per model of the table, in its order; `context` holds the conditions common to all runs.

    Every config is one trial with the mean of its runs. Words need a config of that model that was run more
    than once. Each row is tested with everything else at the best; a row between two tried rates is judged by
    those, assuming that the loss falls and then rises with the rate.
    """
    found = []
    for model in table.models:
        configs = configs_of([run for run in table.runs if run.model == model])
        sweep = sweep_of(model, configs, list(guidelines.values()), context)
        found.append(_judge_model(sweep, configs, table.loss_step, margin, alpha))
    return found


def _judge_model(
    sweep: SweepResult, configs: Sequence[Config], loss_step: float, margin: float, alpha: float
) -> ModelVerdict:
    best = min(configs, key=lambda config: config.mean)
    num_rates = Counter(config.other_settings for config in configs)
    pairs = sum(math.comb(n, 2) for n in num_rates.values())
    compared = {
        config.rate: compare_pooled(
            config, best, configs, comparisons=max(1, pairs), alpha=alpha, loss_step=loss_step
        )
        for config in configs
        if config.other_settings == best.other_settings and config.rate != best.rate
    }
    edges = find_edges(sweep)
    rows, costs = [], {}
    for row in sweep.guidelines:
        measurement = measure(row, sweep)
        decision = _Decision("not_tested")
        if measurement.is_tested:
            decision = _decide(row, best.rate, compared, margin)
        if decision.cost is not None:
            costs[row.id] = decision.cost
        rows.append(
            row_verdict(
                row, sweep, measurement, decision.word, decision.comparison, edges=edges, margin=margin
            )
        )
    noise = pooled_noise(configs, up_to_rate=best.rate, loss_step=loss_step)
    replaced = ("one_run", "lowest_of_several")  # by the pooled noise, which covers both
    limitations = [found for found in limitations_of(sweep, edges, None) if found.code not in replaced]
    return ModelVerdict(
        model=sweep.name,
        verdict=assemble(
            sweep, rows, edges, [_noise_limitation(noise, pairs, alpha), *limitations], margin=margin
        ),
        configs=configs,
        noise=noise,
        costs=costs,
    )


def _noise_limitation(noise: PooledNoise, pairs: int, alpha: float) -> Limitation:
    if noise.spread is None:
        return Limitation("noise_unknown")
    return Limitation("pooled_noise", asdict(noise) | {"pairs": pairs, "alpha": alpha, "guard": NOISE_GUARD})


def _decide(
    row: GuidelineRow, best_rate: float, compared: Mapping[float, Comparison], margin: float
) -> _Decision:
    if row.topic == "stability" or row.parameter != "learning_rate" or row.low is None or row.high is None:
        return _Decision("undecided")

    def tested(rates: Iterable[float]) -> list[ComparedValue]:
        return [ComparedValue(r, "above" if r > best_rate else "below", compared[r]) for r in rates]

    inside = [rate for rate in sorted(compared) if holds_value(row, rate)]
    if row.topic == "boundary" or holds_value(row, best_rate):
        outside = [r for r in _neighbours(row.low, row.high, compared) if r is not None and r not in inside]
        word, comparison = finding_on_sides(
            row, best_rate, tested(inside), tested(outside), margin=margin
        ) or Finding("undecided")
        if row.topic != "boundary":
            return _Decision(word, comparison, Bracket(least=0.0, most=0.0))
        return _Decision(word, comparison, _exactly(compared[inside[0]]) if inside else None)
    # Of a range the end towards the best is the cheapest, if the loss falls and then rises with the rate.
    side: Side = "below" if row.high < best_rate else "above"
    end = row.high if side == "below" else row.low
    tried = next((r for r in compared if math.isclose(r, end, rel_tol=TOLERANCE)), None)
    if tried is not None:
        word = value_word(compared[tried], side=side, margin=margin)
        return _Decision(word, compared[tried], _exactly(compared[tried]))
    lower, upper = _neighbours(end, end, [*compared, best_rate])
    near, far = (upper, lower) if side == "below" else (lower, upper)
    return _bracketed(near, far, side, best_rate, compared, margin)


def _neighbours(low: float, high: float, rates: Iterable[float]) -> tuple[float | None, float | None]:
    """The nearest rate below `low` and above `high`."""
    tried = list(rates)
    return max((r for r in tried if r < low), default=None), min((r for r in tried if r > high), default=None)


def _bracketed(
    near: float | None,
    far: float | None,
    side: Side,
    best_rate: float,
    compared: Mapping[float, Comparison],
    margin: float,
) -> _Decision:
    """A value between two tried rates: no better than the one towards the best, no worse than the one
    beyond."""
    if near is None:
        return _Decision("undecided")
    cost = Bracket(
        least=None if near == best_rate else _percent(compared[near]),
        most=None if far is None else _percent(compared[far]),
    )
    if near != best_rate:
        word = value_word(compared[near], side=side, margin=margin)
        if word in ("too_low", "too_high"):
            return _Decision(word, compared[near], cost)
    if far is None:
        return _Decision("undecided", None, cost)
    match value_word(compared[far], side=side, margin=margin):
        case "no_difference":
            return _Decision("no_difference", compared[far], cost)
        case "supported" | "no_worse":
            return _Decision("no_worse", compared[far], cost)
    return _Decision("undecided", compared[far], cost)


def _exactly(comparison: Comparison) -> Bracket:
    return Bracket(least=_percent(comparison), most=_percent(comparison))


def _percent(comparison: Comparison) -> float:
    return comparison.percent(comparison.effect) or 0.0
