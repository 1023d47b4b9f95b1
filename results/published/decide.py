"""Verdicts on a published table, one per model, by the same words as for a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from results.comparison.constants import MARGIN
from results.comparison.paired import Comparison
from results.comparison.relation import relation
from results.curve_model.hyperparameters import Hyperparameters
from results.curve_model.points import LEAST_RATES
from results.published.configs import Config, configs_of, sweep_of
from results.published.curve_costs import CurveCosts, curve_costs, reason_for_none
from results.published.table import PublishedTable
from results.sweep_result import SweepResult
from results.verdict.band import find_edges
from results.verdict.decide import row_verdict
from results.verdict.limitations import Limitation, limitations_of
from results.verdict.measure import measure
from results.verdict.row_values import TOLERANCE, holds_value, is_beyond
from results.verdict.verdict import Verdict, assemble
from results.words.word_rules import ComparedValue, Finding, boundary_finding, region_finding, value_word
from search_spaces import GuidelineRow, Guidelines

if TYPE_CHECKING:
    from results.curve_model.best_rate import BestRate

DEFAULT_ROW = "method.qlora"
"""The row whose rate is the guidelines' default for adapters."""


@dataclass(frozen=True, kw_only=True)
class ModelVerdict:
    """What a published table says about one of its models."""

    model: str
    verdict: Verdict
    configs: Sequence[Config]
    best_rate: BestRate | None
    """None where no curve is fitted, as `default_cost`."""
    default_cost: Comparison | None
    """What the guidelines' default rate costs, 2e-4 in their own table."""
    nearest_size: frozenset[str]
    """Rows about another model size, the nearest that has one."""
    tried: frozenset[str]
    """Names of the configs that were run."""


def judge_table(
    table: PublishedTable,
    guidelines: Guidelines,
    context: Mapping[str, Any],
    *,
    margin: float = MARGIN,
    hyperparameters: Hyperparameters | None = None,
) -> list[ModelVerdict]:
    """One verdict per model of the table, in its order; `context` holds the conditions common to all runs.

    Every config is one trial with the mean of its runs. What a row's rate costs, tried or not, is read off
    the model's curve (`CurveCosts`), with everything else at the best. `hyperparameters`: what all curves
    share; None: as fitted on the committed table.
    """
    found = []
    for model in table.models:
        configs = configs_of([run for run in table.runs if run.model == model])
        sweep = sweep_of(model, configs, list(guidelines.values()), context)
        found.append(_judge_model(sweep, configs, guidelines, margin, hyperparameters))
    return found


def _judge_model(
    sweep: SweepResult,
    configs: Sequence[Config],
    guidelines: Guidelines,
    margin: float,
    hyperparameters: Hyperparameters | None,
) -> ModelVerdict:
    best = min(configs, key=lambda config: config.mean)
    costs = curve_costs(configs, best, hyperparameters)
    edges = find_edges(sweep)
    nearest = _nearest_size(sweep, guidelines)
    rows = []
    for row in sweep.guidelines:
        measurement = measure(_of_any_size(row) if row.id in nearest else row, sweep)
        found = Finding("undecided" if measurement.is_tested else "not_tested")
        if measurement.is_tested and costs is not None:
            found = _decide(row, best.rate, costs, margin)
        rows.append(
            row_verdict(row, sweep, measurement, found.word, found.comparison, edges=edges, margin=margin)
        )
    replaced = ("one_run", "lowest_of_several")  # by the curve, which covers both
    limitations = [found for found in limitations_of(sweep, edges, None) if found.code not in replaced]
    default = guidelines[DEFAULT_ROW].low if DEFAULT_ROW in guidelines else None
    return ModelVerdict(
        model=sweep.name,
        verdict=assemble(
            sweep, rows, edges, [_limitation(costs, configs, best), *limitations], margin=margin
        ),
        configs=configs,
        best_rate=None if costs is None else costs.best_rate(),
        default_cost=None if costs is None or default is None else costs.at(default),
        nearest_size=nearest,
        tried=frozenset(config.name for config in configs),
    )


def _limitation(costs: CurveCosts | None, configs: Sequence[Config], best: Config) -> Limitation:
    if costs is None:
        code = reason_for_none(configs, best)
        return Limitation(code, {"least": LEAST_RATES} if code == "few_rates" else {})
    return Limitation(
        "curve",
        {
            "runs": costs.num_runs,
            "rates": len(costs.rates),
            "highest": costs.rates[-1],
            "near_divergence": costs.near_divergence,
            "off": costs.rates_off,
        },
    )


def _nearest_size(sweep: SweepResult, guidelines: Guidelines) -> frozenset[str]:
    """Rows of the nearest model size, where no row is about the model's own: what a search space starts
    from."""
    size = sweep.context.get("model_size")
    if size is None:
        return frozenset()
    rows, note = guidelines.nearest_size("model_size", float(size))
    return frozenset() if note is None else frozenset(row.id for row in rows)


def _of_any_size(row: GuidelineRow) -> GuidelineRow:
    when = replace(row.when, model_size_billions_low=None, model_size_billions_high=None)
    return replace(row, when=when)


def _decide(row: GuidelineRow, best_rate: float, costs: CurveCosts, margin: float) -> Finding:
    if row.topic == "stability" or row.parameter != "learning_rate" or row.low is None or row.high is None:
        return Finding("undecided")

    def compared(rates: Sequence[float]) -> list[ComparedValue]:
        return [ComparedValue(r, "above" if r > best_rate else "below", costs.at(r)) for r in rates]

    if row.topic != "boundary" and holds_value(row, best_rate):
        found = region_finding(compared(_neighbours(row.low, row.high, costs.rates)), margin=margin)
        if found.comparison is not None:
            return found
        # Nothing was tried outside: no word, but what the nearest of its ends costs.
        ends = [e for e in (row.low, row.high) if not math.isclose(e, best_rate, rel_tol=TOLERANCE)]
        end = min(ends, key=lambda e: abs(math.log(e / best_rate)), default=best_rate)
        return Finding(found.word, costs.at(end))
    # Of a range the end towards the best is the cheapest, if the loss falls and then rises with the rate.
    rate = row.high if row.high < best_rate else row.low
    own = [] if math.isclose(rate, best_rate, rel_tol=TOLERANCE) else compared([rate])
    if any(costs.is_beyond(rate) and relation(arm.comparison, margin) != "worse" for arm in own):
        return Finding("undecided", own[0].comparison)
    if row.topic != "boundary":
        return Finding(value_word(own[0].comparison, side=own[0].side, margin=margin), own[0].comparison)
    neighbours = compared(_neighbours(rate, rate, costs.rates))
    return boundary_finding(
        own,
        good_side=[arm.comparison for arm in neighbours if not is_beyond(row, arm.value)],
        direction=row.direction or "too_high",
        best_is_beyond=is_beyond(row, best_rate),
        margin=margin,
    )


def _neighbours(low: float, high: float, rates: Sequence[float]) -> list[float]:
    """The nearest tried rate below `low`, and above `high`, where there is one."""
    below = [rate for rate in rates if rate < low * (1 - TOLERANCE)]
    above = [rate for rate in rates if rate > high * (1 + TOLERANCE)]
    return below[-1:] + above[:1]
