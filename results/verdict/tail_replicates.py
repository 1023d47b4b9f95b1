"""The runs on new seeds that a sweep made in seats idle at its end, as the arms of a small confirmation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from results.comparison.arms import Arm, Replicate
from results.comparison.paired import compare_all
from results.comparison.relation import Relation, relation
from results.sweep_result import SweepResult, TrialResult
from results.verdict.arm_comparisons import ArmComparisons
from results.verdict.replicates import Replicates
from results.verdict.row_values import is_close
from results.verdict.row_verdict import RowVerdict
from results.words.words import STRONGER
from search_spaces.dimension import Value

_STRONGER: Mapping[Relation, tuple[Relation, ...]] = {
    "no_worse": ("within", "better"),
    "loses_runs": ("worse",),
}
"""What a relation may become with more runs."""


def tail_replicates(sweep: SweepResult) -> Replicates | None:
    """The best and the guideline default on the seeds that each ran on; None unless both ended a run.

    Runs of a trial that led when they began and has been beaten since are left out.
    """
    best, default = sweep.best, sweep.guideline_default
    if best is None or default is None or best.number == default.number:
        return None
    named = {"best": best, "guideline default": default}
    runs = [
        Replicate(
            arm=name,
            seed=run.seed,
            eval_loss=run.eval_loss,
            metric=run.metric,
            outcome=run.outcome,
            folder=run.folder,
        )
        for run in sorted(sweep.replicates, key=lambda run: str(run.ended))
        for name, trial in named.items()
        if run.seed is not None and run.outcome not in ("running", "waiting") and _is_of(run, trial)
    ]
    if {run.arm for run in runs if not run.missing} != named.keys():
        return None
    arms = (
        Arm(name="best", role="best", values=dict(best.params)),
        Arm(name="guideline default", role="guideline_default", values=dict(default.params)),
    )
    return Replicates(arms=arms, runs=runs)


def with_tail(compared: ArmComparisons, sweep: SweepResult) -> ArmComparisons:
    """The comparisons of a confirmation; what the sweep's own runs had shown of the default before it stands.

    A confirmation has more arms and so wider intervals. Together the two err with at most its alpha and an
    eighth of it: the share that is spent after MAX_SEEDS of 8 seeds.
    """
    tail = tail_replicates(sweep)
    default = next((a.arm.name for a in compared.arms if a.arm.role == "guideline_default"), None)
    if tail is None or default is None or not compared.is_of(sweep.best):
        return compared
    before = compare_all(tail.arms, tail.runs, alpha=compared.alpha)[tail.arms[1].name]
    earned, now = (relation(c, compared.margin) for c in (before, compared.comparisons[default]))
    if earned == "open" or now in (earned, *_STRONGER.get(earned, ())):
        return compared
    shown = replace(before, arm=default, other=compared.reference.name)
    return replace(compared, comparisons={**compared.comparisons, default: shown})


def keep_earned(now: Sequence[RowVerdict], earned: Sequence[RowVerdict]) -> list[RowVerdict]:
    """The verdicts of a confirmation; where it takes back a word of the tail, the tail's instead."""
    return [
        before if after.word != before.word and after.word not in STRONGER.get(before.word, ()) else after
        for after, before in zip(now, earned, strict=True)
    ]


def _is_of(run: TrialResult, trial: TrialResult) -> bool:
    return _are_same(run.params, trial.params)


def _are_same(ours: Mapping[str, Value], theirs: Mapping[str, Value]) -> bool:
    return ours.keys() == theirs.keys() and all(is_close(ours[name], theirs[name]) for name in ours)
