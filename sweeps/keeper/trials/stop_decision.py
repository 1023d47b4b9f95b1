"""The stop decision: whether a report is a trial's last one, and why."""

from __future__ import annotations

import math

import optuna
from optuna.trial import FrozenTrial

from lora_runner.protocol import (
    COMPLETE,
    DIVERGED,
    FAILED,
    OUT_OF_MEMORY,
    PRUNED,
    PUT_BACK,
    SeatReport,
)
from results.stored_trials import is_replicate, search_trials
from results.text.gaps import short_loss
from sweeps.plan.specs import StudySpec
from sweeps.storage.optuna_private import storage_of, trial_id_of
from sweeps.study.curve_gp.pruner import FreezeThaw
from sweeps.study.read_status import is_default


def final_report(
    study: optuna.Study, study_spec: StudySpec, trial: FrozenTrial, report: SeatReport
) -> SeatReport | None:
    """The report with its outcome when the trial has ended or is to end; None when it goes on.

    A report without the metric prunes nothing where trials are compared by it. `trial` as it was before the
    report, which is in the study already, as are those of its neighbours.
    """
    if report.outcome == PUT_BACK:  # for the second time
        return report.ended(OUT_OF_MEMORY, report.stop_reason or "out of memory again")
    metric = study_spec.metric if study_spec.metric is not None and study_spec.metric.objective else None
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
    # A resumed trial repeats reports that were decided on before.
    if report.percent in trial.intermediate_values or is_default(trial) or is_replicate(trial):
        return None
    value, text = report.eval_loss, f"loss {short_loss(report.eval_loss)}"
    if metric is not None:
        if report.metric is None:
            return None
        value, text = metric.cost(report.metric), f"{metric.name} {report.metric:.4f}"
    if not study.pruner.prune(study, storage_of(study).get_trial(trial_id_of(trial))):
        return None
    reported = [t.intermediate_values.get(report.percent) for t in search_trials(study)]
    others = [other for other in reported if other is not None]
    standing = f"rank {1 + sum(other < value for other in others)} of {len(others)}"
    if isinstance(study.pruner, FreezeThaw):
        standing = study.pruner.reason
    return report.ended(PRUNED, f"at {report.percent}%: {text}, {standing}")


def end_text(report: SeatReport, metric: str | None) -> str:
    """How a trial ended, in few words: `pruned at 40%: loss 6.843, rank 5 of 8`, `complete, loss 5.432`."""
    if report.outcome == PRUNED:
        return f"pruned {report.stop_reason}"
    if report.outcome != COMPLETE:
        return f"{str(report.outcome).replace('_', ' ')}, {report.stop_reason}"
    measured = "" if metric is None or report.metric is None else f", {metric} {report.metric:.4f}"
    return f"complete, loss {short_loss(report.eval_loss)}{measured}"
