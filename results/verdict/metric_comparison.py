"""The best by the sweep's metric beside the best by loss, also on common seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from results.comparison.arms import reference
from results.comparison.paired import Comparison, compare
from results.sweep_result import SweepResult, TrialResult
from results.verdict.replicates import Replicates


@dataclass(frozen=True, kw_only=True)
class MetricComparison:
    """The best by the sweep's metric and the best by loss. Words about guideline rows speak of the loss."""

    name: str
    direction: str
    is_objective: bool
    """Whether the sweep searched by it."""
    by_metric: TrialResult
    by_loss: TrialResult
    """Both have a metric and a loss at the full budget."""
    base: float | None = None
    """The metric of the untouched base, where it was measured."""
    comparison: Comparison | None = None
    """The best by the metric against the best by loss, in the metric's own unit: positive where `by_metric`
    has the higher value. None without replicates of both."""

    @property
    def differs(self) -> bool:
        """Whether the best by loss is another trial, with a worse metric."""
        return self.by_metric.number != self.by_loss.number and self.by_metric.metric != self.by_loss.metric


def compare_metric(sweep: SweepResult, replicates: Replicates | None = None) -> MetricComparison | None:
    """None for a sweep without a metric, or without a finished trial that has it."""
    spec = sweep.context.get("metric")
    by_metric, by_loss = sweep.best_by_metric, sweep.best
    if not isinstance(spec, Mapping) or by_metric is None or by_loss is None or by_loss.metric is None:
        return None
    return MetricComparison(
        name=str(spec["name"]),
        direction=str(spec["direction"]),
        is_objective=bool(spec.get("objective")),
        by_metric=by_metric,
        by_loss=by_loss,
        base=sweep.base_metric,
        comparison=None if replicates is None else _compared(by_metric, replicates),
    )


def _compared(best: TrialResult, replicates: Replicates) -> Comparison | None:
    """The arm of `best` against the reference, the best by loss, by the metric of runs on common seeds."""
    against = reference(replicates.arms)
    arm = next((arm for arm in replicates.arms if dict(arm.values) == dict(best.params)), None)
    if arm is None or arm is against:
        return None
    runs = [replace(run, eval_loss=run.metric) for run in replicates.runs]
    return compare(arm.name, against.name, runs, most_seeds=replicates.most_seeds)
