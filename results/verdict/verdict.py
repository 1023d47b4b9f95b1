"""The verdict of a sweep: its best trial, and for every guideline row where the best lies against it.

Each row goes three steps: `measure` takes numbers from the sweep's own trials, `decide` adds what replicates
show and returns the finished row verdict, and the renderers make sentences of it (`results.text`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna

from files_and_text.numbers import plural
from files_and_text.problems import InputError
from files_and_text.shown import Shown
from results.comparison.constants import MARGIN
from results.comparison.over_records import OverRecords, RecordComparisons
from results.effects.value_effects import ValueEffects
from results.errors import NothingToSay
from results.merged_model import MergedModel, read_merged_model
from results.sweep_result import SweepResult, TrialResult, read_study
from results.verdict.arm_comparisons import ArmComparisons, compare_arms
from results.verdict.band import Edge, find_edges
from results.verdict.decide import decide
from results.verdict.limitations import Limitation, limitations_of
from results.verdict.measure import measure
from results.verdict.metric_comparison import MetricComparison, compare_metric
from results.verdict.replicates import Replicates, read_replicates
from results.verdict.row_verdict import RowVerdict
from results.verdict.tail_replicates import keep_earned, tail_replicates, with_tail


@dataclass(frozen=True, kw_only=True, repr=False)
class Verdict(Shown):
    """The answer of one sweep; losses in nats per token."""

    study: str
    best: TrialResult | None
    """None when no trial finished its full budget with a finite loss."""
    guideline_default: TrialResult | None
    """The trial of all the tables' own values at once, whatever its outcome."""
    base_eval_loss: float | None
    rows: Sequence[RowVerdict]
    edges: Sequence[Edge]
    outcomes: Mapping[str, int]
    """Outcome -> number of trials."""
    context: Mapping[str, Any]
    limitations: Sequence[Limitation]
    """The most important first."""
    margin: float = MARGIN
    """Share of the best's loss below which a difference does not matter."""
    replicates: ArmComparisons | None = None
    """Arms run again on common seeds; None when none were."""
    is_confirmed: bool = False
    """Whether a confirm study ran them, or part of them, and not the sweep alone."""
    over_records: RecordComparisons = field(default_factory=RecordComparisons)
    """The default and the arms over other evaluation records."""
    by_metric: MetricComparison | None = None
    """The best by the sweep's metric beside the best by loss; None where the sweep has no metric."""

    merged: MergedModel | None = None
    """The merged model that was measured last, of whatever trial; None where there is none."""

    def _shown(self) -> tuple[str, Mapping[str, str]]:
        words = Counter(row.word for row in self.rows)
        best = self.best
        default = None if self.guideline_default is None else self.guideline_default.eval_loss
        facts = {
            "best": "none" if best is None else f"trial {best.number}, loss {_short(best.eval_loss)}",
            "guideline default": _short(default),
            "rows": ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in words.most_common()),
        }
        return f"Verdict of {self.study!r} on {plural(len(self.rows), 'guideline row')}", facts


def verdict(
    study: optuna.Study | SweepResult,
    replicates: optuna.Study | Replicates | None = None,
    *,
    margin: float | None = None,
    run_folder: Path | None = None,
    has_model: bool = True,
) -> Verdict:
    """Check every guideline row that the sweep names against its trials and, for words, against the confirm
    study's runs.

    Runs that the sweep itself made on new seeds come before those of the confirm study, or take its place.
    `margin` is a share of the best's loss; None takes the confirmation's own, else MARGIN. `run_folder` holds
    the losses of single evaluation records and of a merged model; without it nothing is said of either.
    Without a model (`has_model`) only trials that differ in nothing else say what a value costs: for many
    simulated sweeps.
    Works on unfinished studies too. Raises NothingToSay for a study without a single trial, InputError for
    invalid guideline rows in the study, DamagedReplicates for an invalid confirm study.
    """
    if isinstance(replicates, optuna.Study):
        # A confirmation that was planned and has not started shows nothing yet.
        replicates = read_replicates(replicates) if replicates.get_trials(deepcopy=False) else None
    sweep = study if isinstance(study, SweepResult) else read_study(study)
    is_confirmed = replicates is not None and bool(replicates.runs)
    if not is_confirmed:
        replicates = tail_replicates(sweep)
    if margin is None:
        margin = MARGIN if replicates is None else replicates.margin
    if not sweep.started:
        raise NothingToSay(f"study {sweep.name!r} has no trial yet, so nothing can be said about it")
    runs = replicates if replicates is not None and replicates.runs else None
    compared = None if runs is None else compare_arms(runs, sweep.context, margin=margin)
    if compared is not None and is_confirmed:
        compared = with_tail(compared, sweep)
    edges = find_edges(sweep)
    # What replaced the best since has no runs on new seeds: words and costs are those of single runs again.
    current = compared if compared is not None and compared.is_of(sweep.best) else None
    effects = ValueEffects(sweep, has_model=has_model)
    measured = [(row, measure(row, sweep, effects)) for row in sweep.guidelines]

    def decided(evidence: ArmComparisons | None) -> list[RowVerdict]:
        return [
            decide(row, found, sweep, evidence, edges=edges, margin=margin, effects=effects)
            for row, found in measured
        ]

    rows = decided(current)
    if current is not None and is_confirmed and (tail := tail_replicates(sweep)) is not None:
        rows = keep_earned(rows, decided(compare_arms(tail, sweep.context, margin=margin)))
    limitations = limitations_of(sweep, edges, compared)
    found = assemble(sweep, rows, edges, limitations, margin=margin, compared=compared, replicates=runs)
    found = replace(found, is_confirmed=is_confirmed)
    if run_folder is None:
        return found
    found = _with_merged(found, run_folder)
    over_records = OverRecords(run_folder, () if compared is None else compared.runs, margin=margin)
    return replace(found, over_records=_compare_over_records(sweep, compared, over_records))


def _with_merged(found: Verdict, run_folder: Path) -> Verdict:
    try:
        return replace(found, merged=read_merged_model(run_folder))
    except InputError as error:
        said = Limitation("merged_not_read", {"reason": str(error)})
        return replace(found, limitations=[*found.limitations, said])


def _compare_over_records(
    sweep: SweepResult, compared: ArmComparisons | None, over_records: OverRecords
) -> RecordComparisons:
    arms = {}
    if compared is not None:
        others = [summary.arm for summary in compared.arms if summary.arm != compared.reference]
        found = {arm.name: over_records.of_arms(arm, compared.reference) for arm in others}
        arms = {name: beside for name, beside in found.items() if beside is not None}
    best, default = sweep.chosen or sweep.best, sweep.guideline_default
    if best is None or default is None or default.number == best.number:
        return RecordComparisons(arms=arms)
    if compared is not None and (pair := compared.best_and_default(best)) is not None:
        again, its = pair
        beside = arms.get(its.name) if again == compared.reference else over_records.of_arms(its, again)
        return RecordComparisons(default=beside, arms=arms)
    return RecordComparisons(default=over_records.of_trials(default, best), arms=arms)


def assemble(
    sweep: SweepResult,
    rows: Sequence[RowVerdict],
    edges: Sequence[Edge],
    limitations: Sequence[Limitation],
    *,
    margin: float,
    compared: ArmComparisons | None = None,
    replicates: Replicates | None = None,
) -> Verdict:
    """The verdict with rows that are already decided."""
    return Verdict(
        study=sweep.name,
        best=sweep.best,
        guideline_default=sweep.guideline_default,
        base_eval_loss=sweep.base_eval_loss,
        rows=rows,
        edges=edges,
        outcomes=dict(sorted(Counter(trial.outcome for trial in sweep.trials).items())),
        context=dict(sweep.context),
        limitations=limitations,
        margin=margin,
        replicates=compared,
        by_metric=compare_metric(sweep, replicates),
    )


def _short(loss: float | None) -> str:
    return "not known" if loss is None else f"{loss:.3f}"
