"""What a trial's report means for it: does it go on, or is this its end, and why."""

from __future__ import annotations

import math

import optuna
from optuna.trial import FrozenTrial

from lora_runner.metric.scores import MetricSpec
from lora_runner.protocol import COMPLETE, DIVERGED, FAILED, PRUNED, SeatReport
from sweeps.study.status import DEFAULT_LABELS


def judge(
    study: optuna.Study,
    trial: FrozenTrial,
    report: SeatReport,
    *,
    pruner_name: str,
    metric: MetricSpec | None = None,
) -> SeatReport | None:
    """The report as the trial's last one, when it has ended or has to; None when it goes on.

    `metric` is what trials are compared by in the place of the loss; a report without it prunes nothing.
    `trial` as it was before the report; the study holds it, and those of its neighbours, already.
    """
    if report.outcome not in (COMPLETE, None):
        return report
    if report.eval_loss is None or not math.isfinite(report.eval_loss):
        if report.outcome is None and report.eval_loss is None:
            return None
        loss = "no finite number" if report.eval_loss is None else report.eval_loss
        return report.ended(DIVERGED, f"evaluation loss is {loss} at {report.percent}% of the budget")
    if report.outcome == COMPLETE:
        if metric is not None and report.metric is None:
            return report.ended(FAILED, f"{metric.name}, by which trials are compared, was not measured")
        return report
    # A trial that goes on from a checkpoint repeats reports, which were decided on when they were new.
    if report.percent in trial.intermediate_values or trial.user_attrs.get("label") in DEFAULT_LABELS:
        return None
    compared, words = report.eval_loss, f"evaluation loss {report.eval_loss:.4f}"
    if metric is not None:
        if report.metric is None:
            return None
        compared, words = metric.cost(report.metric), f"{metric.name} {report.metric:.4f}"
    if not study.pruner.prune(study, study._storage.get_trial(trial._trial_id)):
        return None
    reported = [t.intermediate_values.get(report.percent) for t in study.get_trials(deepcopy=False)]
    rivals = [value for value in reported if value is not None]
    rank = 1 + sum(value < compared for value in rivals)
    return report.ended(
        PRUNED,
        f"{pruner_name} at {report.percent}% of the budget: {words} is number {rank} of {len(rivals)} there",
    )
