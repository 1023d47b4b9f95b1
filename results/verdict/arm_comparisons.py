"""The replicates of a sweep: every arm on its own and against the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from files_and_text.plain_values import finite
from results.comparison.arms import Arm, Replicate, reference, runs_by_arm
from results.comparison.constants import ALPHA, MARGIN, MOST_SEEDS
from results.comparison.paired import Comparison, compare_all
from results.comparison.relation import relation
from results.sweep_result import TrialResult, hyperparameters
from results.verdict.replicates import Replicates
from results.verdict.row_values import is_close
from search_spaces.dimension import Value


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm's runs on their own."""

    arm: Arm
    runs: int
    finished: int
    mean: float | None
    """Nats per token over the runs that finished."""
    spread: float | None
    """Standard deviation of one run, seeds and all; None below two."""
    metric: float | None = None
    """Mean of the sweep's metric over the runs that finished and have it."""


@dataclass(frozen=True, kw_only=True)
class ArmComparisons:
    """What the replicates of one sweep show."""

    reference: Arm
    arms: Sequence[ArmSummary]
    """The reference first."""
    values: Mapping[str, Mapping[str, Value]]
    """Arm -> its hyperparameters, derived ones too."""
    comparisons: Mapping[str, Comparison]
    """Arm -> the arm against the reference."""
    margin: float
    alpha: float
    runs: Sequence[Replicate] = ()
    most_seeds: int = MOST_SEEDS
    clear: bool
    """Whether the stopping rule is met: every arm has its relation to the reference."""
    run_noise: float
    """Standard deviation of one run once its seed is accounted for, nats; 0 when not known.

    From the arms' paired differences, which hold two runs' noise each; the median of the arms, as a learning
    rate near divergence is noisier than the rest.
    """

    @property
    def rounds(self) -> int:
        """Finished runs of the reference."""
        return self.arms[0].finished

    def is_of(self, best: TrialResult | None) -> bool:
        """Whether `best` is what was run again: a sweep that went on may have another best by now."""
        return best is not None and has_values_of(best, self.reference.values)

    def best_and_default(self, best: TrialResult) -> tuple[Arm, Arm] | None:
        """The arms of the sweep's best and of the guideline default, where both were run again."""
        arms = [summary for summary in self.arms if summary.runs]
        again = next(
            (a.arm for a in arms if a.arm.role == "best" and has_values_of(best, a.arm.values)), None
        )
        default = next((a.arm for a in arms if a.arm.role == "guideline_default"), None)
        return None if again is None or default is None else (again, default)


def has_values_of(trial: TrialResult, values: Mapping[str, Value]) -> bool:
    """Whether the trial's own hyperparameters are these."""
    return all(is_close(values.get(name), value) for name, value in trial.params.items())


def compare_arms(
    replicates: Replicates, context: Mapping[str, Any], *, margin: float = MARGIN, alpha: float = ALPHA
) -> ArmComparisons:
    """Compare every arm with the sweep's best; warmup steps and embedding rates follow from `context`."""
    best = reference(replicates.arms)
    arms = [best, *(arm for arm in replicates.arms if arm is not best)]
    runs = runs_by_arm(replicates.runs)
    losses = {
        arm.name: {seed: x for seed, run in runs.get(arm.name, {}).items() if (x := run.loss) is not None}
        for arm in arms
    }
    comparisons = compare_all(
        replicates.arms,
        replicates.runs,
        most_seeds=replicates.most_seeds,
        alpha=alpha,
    )
    return ArmComparisons(
        reference=best,
        arms=[
            ArmSummary(
                arm=arm,
                runs=len(runs.get(arm.name, {})),
                finished=len(losses[arm.name]),
                mean=fmean(losses[arm.name].values()) if losses[arm.name] else None,
                spread=stdev(losses[arm.name].values()) if len(losses[arm.name]) > 1 else None,
                metric=_metric(runs.get(arm.name, {}).values()),
            )
            for arm in arms
        ],
        values={arm.name: values_of(arm, context) for arm in replicates.arms},
        comparisons=comparisons,
        margin=margin,
        alpha=alpha,
        runs=replicates.runs,
        most_seeds=replicates.most_seeds,
        clear=bool(comparisons) and all(relation(c, margin) != "open" for c in comparisons.values()),
        run_noise=_run_noise(losses, best.name),
    )


def _metric(runs: Iterable[Replicate]) -> float | None:
    found = [run.metric for run in runs if run.loss is not None and run.metric is not None]
    return fmean(found) if found else None


def values_of(arm: Arm, context: Mapping[str, Any]) -> dict[str, Value]:
    """The arm's hyperparameters, derived ones too."""
    values = hyperparameters(arm.values, {}, context)
    ratio, steps = finite(values.get("warmup_ratio")), finite(values.get("max_steps"))
    if "warmup_steps" not in values and ratio is not None and steps is not None:
        values["warmup_steps"] = min(int(steps), math.ceil(ratio * steps))
    return values


def _run_noise(losses: Mapping[str, Mapping[int, float]], best: str) -> float:
    theirs = losses[best]
    differences = [
        [ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()]
        for name, ours in losses.items()
        if name != best
    ]
    spreads = [stdev(found) / math.sqrt(2) for found in differences if len(found) > 1]
    return median(spreads) if spreads else 0.0
