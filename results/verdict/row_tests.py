"""Which arms of a confirmation and which trial of the sweep test a guideline row.

An arm that takes the best's other settings asks what a value costs there. Whoever takes the value may retune
the rest, so a row is refuted only when the sweep's best trial inside it costs more than the margin too: run
again as an arm, or, where it is far behind, by its one run and the noise that the confirmation measured.
Where many hyperparameters are searched, a few trials rarely find the best of the rest, so every arm in the
row has to cost more than the margin alone. The same holds for rows of schedulers: another learning rate may
restore the mean rate over the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import stdev

from results.comparison.arms import Arm, runs_by_arm
from results.comparison.constants import MIN_PAIRS
from results.comparison.paired import Comparison
from results.comparison.quantiles import t_quantile
from results.sweep_result import SweepResult, TrialResult
from results.verdict.arm_comparisons import ArmComparisons, has_values_of
from results.verdict.row_values import (
    BASE_DIMENSION,
    dimension_name,
    has_value_of,
    holds_value,
    is_close,
    side_of,
)
from results.words.word_rules import ComparedValue
from search_spaces import GuidelineRow
from search_spaces.dimension import Value

FEW_DIMENSIONS = 3
"""Searched up to here, a sweep's own trials show well enough what retuning saves."""
COSTS_RETUNED, COSTS_ALONE = 2.0, 2.5
"""Where more is searched, and of a schedule, the margins that a refuted value has to cost more than: where an
arm took it with the rest retuned, and where none did. Chosen by simulation (`benchmarks.confirmations`)."""


@dataclass(frozen=True, kw_only=True)
class RowTests:
    """The comparisons that speak about one row."""

    own: list[ComparedValue]
    """Values in the row, everything else as in the best."""
    outside: list[ComparedValue]
    """Values outside it, everything else as in the best."""
    retuned: list[Comparison]
    """Arms that hold a value of the row, of a boundary one at or beyond it, beside other settings than the
    best's: the guideline default, the sweep's best trials inside rows, and further best trials."""


def tests_of(row: GuidelineRow, sweep: SweepResult, compared: ArmComparisons) -> RowTests:
    """The arms that speak about the row, all but the best itself and the one rate for all."""
    name = row.parameter or ""
    best = compared.values[compared.reference.name].get(name)
    found = RowTests(own=[], outside=[], retuned=[])
    for summary in compared.arms:
        arm = summary.arm
        value = compared.values[arm.name].get(name)
        if arm is compared.reference or arm.role == "one_rate" or value is None:
            continue
        comparison = compared.comparisons[arm.name]
        named = arm.role in ("row", "contrast") and row.id in arm.rows
        if best is not None and (named or differs_only_in(name, arm, sweep, compared)):
            side, refutes = side_of(value, best), _refutes(row, value, best)
            own = found.own if holds_value(row, value) else found.outside
            own.append(ComparedValue(value, side, comparison, refutes))
        elif _speaks_beside_others(arm, value, best) and has_value_of(row, value):
            found.retuned.append(comparison)
    return found


def least_cost(row: GuidelineRow, tests: RowTests, sweep: SweepResult, compared: ArmComparisons) -> float:
    """The margins that every arm has to cost more than before the row is refuted."""
    searched = [name for name, dimension in sweep.dimensions.items() if not dimension.fixed]
    is_schedule = row.parameter == "lr_scheduler_type" and "learning_rate" in searched
    if len(searched) <= FEW_DIMENSIONS and not is_schedule:
        return 1.0
    roles = {summary.arm.name: summary.arm.role for summary in compared.arms}
    is_retuned = any(roles[comparison.arm] == "retuned" for comparison in tests.retuned)
    return COSTS_RETUNED if is_retuned else COSTS_ALONE


def differs_only_in(name: str, arm: Arm, sweep: SweepResult, compared: ArmComparisons) -> bool:
    """Whether every other searched dimension is the best's; a dimension that one of the two lacks is left
    out.

    With another main learning rate the embeddings may keep their rate instead of their ratio, as the first
    trials do.
    """
    ours, best = compared.values[arm.name], compared.values[compared.reference.name]
    base = BASE_DIMENSION.get(name, name)
    for other in sweep.dimensions:
        if other == base or other not in ours or other not in best or is_close(ours[other], best[other]):
            continue
        kept = is_close(ours.get("embedding_learning_rate"), best.get("embedding_learning_rate"))
        if not (name == "learning_rate" and other == "embedding_lr_ratio" and kept):
            return False
    return not is_close(ours.get(name), best.get(name))


def _speaks_beside_others(arm: Arm, value: Value, best: Value | None) -> bool:
    """Whether the arm may speak for its value beside other settings; one that shares the best's value does
    only as the guideline default, of whose values each is the tables' own."""
    if arm.role == "guideline_default":
        return True
    return arm.role in ("retuned", "best") and (best is None or not is_close(value, best))


def _refutes(row: GuidelineRow, value: Value, best: Value) -> bool:
    """Whether the value is the row's end towards the best; every name is."""
    end = row.high if side_of(value, best) == "below" else row.low
    return end is None or is_close(value, end)


def retuned_trial(row: GuidelineRow, sweep: SweepResult) -> TrialResult | None:
    """The best full-budget trial with the row's value, of a boundary at or beyond it, that differs from the
    sweep's best in another searched dimension too."""
    best = sweep.best
    if best is None:
        return None
    name = row.parameter or ""
    own = dimension_name(row)
    for trial in sweep.finished:
        if has_value_of(row, trial.values.get(name)) and any(
            other != own and not is_close(trial.params.get(other), best.params.get(other))
            for other in sweep.dimensions
            if other in trial.params or other in best.params
        ):
            return trial
    return None


def was_run_again(trial: TrialResult, compared: ArmComparisons) -> bool:
    """Whether an arm of the confirmation has the trial's configuration."""
    return any(has_values_of(trial, summary.arm.values) for summary in compared.arms)


def costs_beyond_noise(
    trial: TrialResult, sweep: SweepResult, compared: ArmComparisons, *, measured_by: str
) -> bool:
    """Whether the trial's one run costs more than the margin and noise explain.

    The difference of two runs on the sweep's seed has `sqrt(2)` times the noise of one, and the lowest of n
    losses lies up to `sqrt(2 ln n)` times the noise too low. Both are taken at the t quantile of the pairs
    that measured the noise: those of the arm `measured_by` and the best. True once it was so at any number of
    pairs, so that further runs take no word back; for that the k-th look leaves 5% / k outside.
    """
    best = sweep.best
    if best is None or best.eval_loss is None or trial.eval_loss is None:
        return False
    excess = trial.eval_loss - best.eval_loss - compared.margin * abs(best.eval_loss)
    luck = math.sqrt(2) + math.sqrt(math.log(len(sweep.finished)) / 2)
    runs = runs_by_arm(compared.runs)
    theirs = runs.get(compared.reference.name, {})
    differences = []
    for seed, run in runs.get(measured_by, {}).items():
        other = theirs.get(seed)
        if run.loss is None or other is None or other.loss is None:
            continue
        differences.append(run.loss - other.loss)
        look = len(differences) - MIN_PAIRS + 1
        if look < 1:
            continue
        noise = stdev(differences) / math.sqrt(2)
        if 0 < t_quantile(0.05 / look, len(differences) - 1) * luck * noise < excess:
            return True
    return False
