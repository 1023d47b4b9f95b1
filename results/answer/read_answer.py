"""The answer of a sweep from its study and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from files_and_text.choices import SCHEDULERS_WITHOUT_WARMUP
from results.answer.answer import Answer, BestConfig, Compared, Loss, MergedBest, Sure, single_gap
from results.answer.next_commands import next_commands, rows_command
from results.answer.parameters import gap_of, parameter_answers
from results.answer.run_facts import read_run_facts
from results.answer.samples import read_samples
from results.comparison.constants import MARGIN, MIN_PAIRS
from results.comparison.paired import Comparison, compare
from results.comparison.quantiles import t_quantile
from results.comparison.relation import relation
from results.effects.untried_side import untried_side
from results.merged_model import MergedModel
from results.parameter_order import in_order
from results.sweep_result import SweepResult, TrialResult
from results.verdict.arm_comparisons import ArmComparisons, ArmSummary, has_values_of
from results.verdict.row_values import BASE_DIMENSION
from results.verdict.verdict import Verdict
from search_spaces.dimension import Value

_SURE: Mapping[str, Sure] = {
    "worse": "default_costs",
    "loses_runs": "default_loses_runs",
    "within": "no_difference",
    "better": "default_better",
    "no_worse": "open",
    "open": "open",
}


def read_answer(
    sweep: SweepResult, verdict: Verdict | None, *, run_folder: str, target: int | None = None
) -> Answer:
    """The answer; `verdict` is the one on the same study, None while it has no trial.

    `run_folder` is the run as on the command line, `target` the number of trials that the sweep asks for.
    """
    run = read_run_facts(sweep, run_folder=run_folder, target=target)
    best = sweep.chosen or sweep.best
    compared = None if verdict is None else verdict.replicates
    again = compared if compared is not None and compared.is_of(best) else None
    # The best by the metric may be another arm than the reference, which is the best by loss.
    arm = None if best is None or compared is None else _arm_of(best, compared)
    default = _default(sweep, best, again)
    if again is None and arm is not None and compared is not None:
        default = _beside(default, arm, compared)
    sure: Sure = "not_by_metric" if again is None and arm is not None else _sure(sweep, best, compared, again)
    spec = sweep.context.get("metric")
    metric = str(spec["name"]) if isinstance(spec, Mapping) else None
    run_again = [] if compared is None else [compared.values[a.arm.name] for a in compared.arms if a.runs]
    untried, mean = untried_side(sweep, best, run_again)
    if run.is_unfinished or (arm is not None and arm.runs > arm.finished):
        untried = ""  # what is not finished goes on by itself, and a best that loses runs is rather too high
    config = None if best is None else _best_config(sweep, best, arm)
    return Answer(
        sweep=sweep.name,
        run=run,
        best=config,
        default=default,
        base=_base(sweep, config),
        unquantized_base=_unquantized_base(sweep, config),
        merged=_merged(sweep, config, None if verdict is None else verdict.merged),
        sure=sure,
        untried=untried,
        mean_rate=mean,
        seeds=0 if arm is None else arm.finished,
        margin=MARGIN if verdict is None else verdict.margin,
        metric=metric,
        is_by_metric=isinstance(spec, Mapping) and bool(spec.get("objective")),
        parameters=[] if verdict is None else parameter_answers(verdict.rows, best, sweep.guideline_default),
        over_records=None if verdict is None else verdict.over_records.default,
        samples=read_samples(sweep, best),
        rows_alone=None
        if again is None or verdict is None
        else rows_command(run, again, is_confirmed=verdict.is_confirmed),
        next=next_commands(
            run,
            sure=sure,
            finished=len(sweep.finished),
            has_default=sweep.guideline_default is not None,
            compared=again,
        ),
    )


def _arm_of(best: TrialResult, compared: ArmComparisons) -> ArmSummary | None:
    return next(
        (a for a in compared.arms if a.arm.role == "best" and has_values_of(best, a.arm.values)), None
    )


def _beside(default: Compared, best: ArmSummary, compared: ArmComparisons) -> Compared:
    """The default's runs on the new seeds against a best that is not the reference, paired by seed."""
    arm = _default_arm(compared)
    if arm is None or arm.runs == 0 or best.mean is None:
        return default
    comparison = compare(
        arm.arm.name, best.arm.name, compared.runs, most_seeds=compared.most_seeds, alpha=compared.alpha
    )
    return replace(_on_seeds(default, arm), gap=gap_of(comparison))


def _best_config(sweep: SweepResult, best: TrialResult, arm: ArmSummary | None) -> BestConfig:
    assert best.eval_loss is not None
    seeds = None if arm is None else _loss_of(arm)
    return BestConfig(
        trial=best.number,
        values=dict(best.values),
        settings=_settings(sweep, best),
        has_no_warmup=_has_no_warmup(sweep, best),
        loss=seeds or Loss(value=best.eval_loss),
        lost_runs=0 if arm is None else arm.runs - arm.finished,
        metric=best.metric if arm is None or arm.metric is None else arm.metric,
    )


def _settings(sweep: SweepResult, trial: TrialResult) -> dict[str, Value]:
    searched = _searched(sweep)
    followed = {name for name, base in BASE_DIMENSION.items() if base in searched}
    if "learning_rate" in searched:
        followed.add("embedding_learning_rate")  # with a fixed ratio it still follows the main rate
    return {name: trial.values[name] for name in in_order([*searched, *followed]) if name in trial.values}


def _has_no_warmup(sweep: SweepResult, trial: TrialResult) -> bool:
    scheduler = trial.values.get("lr_scheduler_type")
    return scheduler in SCHEDULERS_WITHOUT_WARMUP and "warmup_ratio" in _searched(sweep)


def _searched(sweep: SweepResult) -> set[str]:
    return {name for name, dimension in sweep.dimensions.items() if not dimension.fixed}


def _loss_of(arm: ArmSummary) -> Loss | None:
    """The mean over the seeds that finished; None while none has."""
    if arm.mean is None:
        return None
    if arm.finished < MIN_PAIRS or arm.spread is None:
        return Loss(value=arm.mean, seeds=arm.finished)
    half = t_quantile(0.05, arm.finished - 1) * arm.spread / math.sqrt(arm.finished)
    return Loss(value=arm.mean, low=arm.mean - half, high=arm.mean + half, seeds=arm.finished)


def _default(sweep: SweepResult, best: TrialResult | None, again: ArmComparisons | None) -> Compared:
    trial = sweep.guideline_default
    if trial is None:
        return Compared(outcome="not_tried", values={})
    shown = Compared(
        trial=trial.number,
        outcome=trial.outcome,
        reason=trial.stop_reason if trial.eval_loss is None else "",
        values=dict(trial.values),
        settings=_settings(sweep, trial),
        has_no_warmup=_has_no_warmup(sweep, trial),
        metric=trial.metric,
        loss=None if trial.eval_loss is None else Loss(value=trial.eval_loss),
        gap=single_gap(trial.eval_loss, None if best is None else best.eval_loss),
    )
    arm = None if again is None else _default_arm(again)
    if again is None or arm is None or arm.runs == 0:
        return shown
    return replace(_on_seeds(shown, arm), gap=gap_of(again.comparisons.get(arm.arm.name)))


def _on_seeds(shown: Compared, arm: ArmSummary) -> Compared:
    """With what the default's runs on new seeds show, whatever its trial in the sweep did."""
    if arm.mean is None:
        reason = f"0 of {arm.runs} runs on new seeds finished"
        return replace(
            shown, outcome="no_seed_finished", reason=reason, loss=None, gap=None, lost_runs=arm.runs
        )
    return replace(
        shown,
        outcome="complete",
        reason="",
        loss=_loss_of(arm),
        lost_runs=arm.runs - arm.finished,
        metric=shown.metric if arm.metric is None else arm.metric,
    )


def _default_arm(again: ArmComparisons) -> ArmSummary | None:
    return next((arm for arm in again.arms if arm.arm.role == "guideline_default"), None)


def _base(sweep: SweepResult, best: BestConfig | None) -> Compared:
    """Evaluated once: it has no seed."""
    if sweep.base_eval_loss is None:
        return Compared(outcome="not_measured", values={})
    return Compared(
        values={},
        loss=Loss(value=sweep.base_eval_loss),
        gap=single_gap(sweep.base_eval_loss, None if best is None else best.loss.value),
        metric=sweep.base_metric,
    )


def _unquantized_base(sweep: SweepResult, best: BestConfig | None) -> Compared | None:
    found = sweep.base_unquantized
    if found is None:
        return None
    if found.eval_loss is None:
        return Compared(outcome="not_measured", reason=found.reason, values={})
    gap = single_gap(found.eval_loss, None if best is None else best.loss.value)
    return Compared(values={}, loss=Loss(value=found.eval_loss), gap=gap)


def _merged(sweep: SweepResult, best: BestConfig | None, found: MergedModel | None) -> MergedBest | None:
    """None for a model that holds another best, or was evaluated on other records."""
    if best is None or found is None or found.trial != best.trial:
        return None
    if sweep.context.get("eval_set_hash") not in (None, found.eval_digest):
        return None
    gap = None if best.loss.seeds else single_gap(found.loss, best.loss.value)
    return MergedBest(dtype=found.dtype, loss=found.loss, folder=found.folder, gap=gap)


def _sure(
    sweep: SweepResult,
    best: TrialResult | None,
    compared: ArmComparisons | None,
    again: ArmComparisons | None,
) -> Sure:
    if best is None:
        return "no_best"
    default = sweep.guideline_default
    if default is not None and default.number == best.number:
        return "default_is_best"
    if compared is None:
        return "one_run"
    if again is None:
        return "best_changed"
    if again.arms[0].runs and not again.arms[0].finished:
        return "best_loses_runs"
    arm = _default_arm(again)
    comparison: Comparison | None = None if arm is None else again.comparisons.get(arm.arm.name)
    if comparison is None:
        return "default_unknown"
    found = relation(comparison, again.margin)
    if comparison.low is None and found == "open":
        return "too_few_seeds"
    return _SURE[found]
