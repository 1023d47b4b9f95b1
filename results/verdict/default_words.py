"""Words of rows whose value the guideline default holds, where no arm of their own was run.

The default takes all of the tables' own values at once. Where it is no worse than the best by more than the
margin, none of its values costs more than that beside the others, which decides each of their rows. Where it
is worse, it differs from the best in several hyperparameters and does not say which of them it is. For the
learning rate alone the sweep itself can tell: `is_beyond_noise` asks whether trials with that rate and other
settings stayed behind as well.
"""

from __future__ import annotations

import math

from results.sweep_result import SweepResult
from results.verdict.arm_comparisons import ArmComparisons, ArmSummary
from results.verdict.measure import Measurement
from results.verdict.row_values import holds_value, is_close, side_of
from results.verdict.statistics import Comparison, relation, t_quantile
from results.verdict.word_rules import Word, value_word
from search_spaces import GuidelineRow


def word_by_default(
    row: GuidelineRow, measurement: Measurement, sweep: SweepResult, compared: ArmComparisons
) -> tuple[Word, Comparison] | None:
    """The word and the default's comparison; None where the default does not hold the row's value."""
    arm = default_arm(compared)
    name = row.parameter or ""
    if arm is None or row.topic in ("boundary", "stability") or not measurement.is_tested:
        return None
    value = compared.values[arm.arm.name].get(name)
    if value is None or not holds_value(row, value):
        return None
    comparison = compared.comparisons[arm.arm.name]
    best = compared.values[compared.reference.name].get(name)
    side = "other" if best is None else side_of(value, best)
    found = relation(comparison, compared.margin)
    word = value_word(comparison, side=side, margin=compared.margin)
    if found not in ("worse", "loses_runs"):
        return word, comparison
    end = row.high if side == "below" else row.low
    is_end = end is not None and is_close(value, end)
    alone = name == "learning_rate" and is_end and is_beyond_noise(row, measurement, sweep, compared)
    return (word if alone else "undecided"), comparison


def default_arm(compared: ArmComparisons) -> ArmSummary | None:
    """The guideline default among the arms, if it was run again."""
    return next((arm for arm in compared.arms if arm.arm.role == "guideline_default"), None)


def is_beyond_noise(
    row: GuidelineRow, measurement: Measurement, sweep: SweepResult, compared: ArmComparisons
) -> bool:
    """Whether the cheapest full-budget trial inside the row costs more than the margin and noise explain.

    There has to be one beside the default: only others can show that retuning the rest does not help. The
    difference of two runs on the sweep's seed has `sqrt(2) * run_noise`, and the lowest of n losses lies up
    to `sqrt(2 ln n) * run_noise` too low. Both are taken at the t quantile of the few pairs that measured the
    noise, which is 2 for many.
    """
    cost, best, default = measurement.cost, sweep.best, default_arm(compared)
    if cost is None or best is None or best.eval_loss is None or default is None or not compared.run_noise:
        return False
    of_default = sweep.guideline_default
    others = [
        trial
        for trial in sweep.finished
        if holds_value(row, trial.values.get(row.parameter or ""))
        and (of_default is None or trial.number != of_default.number)
    ]
    pairs = compared.comparisons[default.arm.name].pairs
    if not others or pairs < 2:
        return False
    lowest_of = math.sqrt(math.log(len(sweep.finished)) / 2)
    noise = t_quantile(0.05, pairs - 1) * (math.sqrt(2) + lowest_of) * compared.run_noise
    return cost.difference > compared.margin * abs(best.eval_loss) + noise
