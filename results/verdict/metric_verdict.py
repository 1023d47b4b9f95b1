"""A sweep's metric beside its loss: the best by either, and what runs on common seeds say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from files_and_text.numbers import loss
from files_and_text.plain_values import plain
from results.sweep_result import SweepResult, TrialResult
from results.verdict.replicates import Replicates
from results.verdict.statistics import Comparison, Replicate, compare, reference


@dataclass(frozen=True, kw_only=True)
class MeasuredTrial:
    """A trial with both of its values at the full budget."""

    number: int
    metric: float
    eval_loss: float
    """Nats per token."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a verdict says of the sweep's metric. Its words about guideline rows speak of the loss."""

    name: str
    direction: str
    is_objective: bool
    """Whether the sweep searched by it."""
    by_metric: MeasuredTrial
    by_loss: MeasuredTrial
    """The trial with the lowest loss; None of its values is missing."""
    base: float | None = None
    """The metric of the untouched base, where it was measured."""
    comparison: Comparison | None = None
    """The best by the metric against the best by loss, in the metric's own unit: positive where `by_metric`
    has the higher value. None without replicates of both."""

    @property
    def differs(self) -> bool:
        """Whether the best by loss is another trial, with a worse metric."""
        return self.by_metric.number != self.by_loss.number and self.by_metric.metric != self.by_loss.metric

    def to_dict(self) -> dict[str, Any]:
        """Builtins only."""
        found: dict[str, Any] = plain(
            asdict(replace(self, comparison=None))
            | {
                "differs": self.differs,
                "comparison": None if self.comparison is None else self.comparison.to_dict(),
            }
        )
        return found

    def sentences(self) -> list[str]:
        """The same in words."""
        best, other, name = self.by_metric, self.by_loss, self.name
        values = f"trial {best.number} with {best.metric:.4f} (loss {loss(best.eval_loss)})"
        said = [
            f"Searched by {name} ({self.direction}): the best config is that of {values}. Guideline rows are "
            "judged by the loss."
            if self.is_objective
            else f"Watched beside the loss: {name} ({self.direction}), best in {values}."
        ]
        if self.base is not None:
            said.append(f"The untouched base has {name} {self.base:.4f}.")
        if not self.differs:
            said.append(f"The best by loss, trial {other.number}, has {name} {other.metric:.4f} too.")
            return said
        said.append(
            f"The best by loss is not the best by {name}: trial {other.number} has loss "
            f"{loss(other.eval_loss)} and {name} {other.metric:.4f}."
        )
        if (found := self.comparison) is None or found.effect is None:
            said.append(f"Whether {name} differs beyond chance is open: `sweeps confirm` runs both again.")
        else:
            interval = "" if found.low is None else f" ({found.low:+.4f} to {found.high:+.4f})"
            said.append(
                f"On {found.pairs} common seeds trial {best.number} against trial {other.number}: {name} "
                f"{found.effect:+.4f}{interval}."
            )
        return said


def measured(sweep: SweepResult, replicates: Replicates | None = None) -> Measured | None:
    """None for a sweep without a metric, or without a finished trial that has it."""
    spec = sweep.context.get("metric")
    by_metric, by_loss = sweep.best_by_metric, sweep.best
    if not isinstance(spec, Mapping) or by_metric is None or by_loss is None or by_loss.metric is None:
        return None
    return Measured(
        name=str(spec["name"]),
        direction=str(spec["direction"]),
        is_objective=bool(spec.get("objective")),
        by_metric=_summary(by_metric),
        by_loss=_summary(by_loss),
        base=sweep.base_metric,
        comparison=None if replicates is None else _compared(by_metric, replicates),
    )


def _summary(trial: TrialResult) -> MeasuredTrial:
    assert trial.metric is not None
    assert trial.eval_loss is not None
    return MeasuredTrial(number=trial.number, metric=trial.metric, eval_loss=trial.eval_loss)


def _compared(best: TrialResult, replicates: Replicates) -> Comparison | None:
    """The arm of `best` against the reference, the best by loss, by the metric of runs on common seeds."""
    against = reference(replicates.arms)
    arm = next((arm for arm in replicates.arms if dict(arm.values) == dict(best.params)), None)
    if arm is None or arm is against:
        return None
    runs = [
        Replicate(arm=run.arm, seed=run.seed, eval_loss=run.metric, outcome=run.outcome)
        for run in replicates.runs
    ]
    return compare(arm.name, against.name, runs)
