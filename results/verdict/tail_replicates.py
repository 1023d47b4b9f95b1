"""Runs on new seeds that a sweep made in seats idle at its end, alone or before those of a confirmation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from results.comparison.arms import Arm, Replicate
from results.sweep_result import SweepResult, TrialResult
from results.verdict.replicates import Replicates
from results.verdict.row_values import is_close
from search_spaces.dimension import Value

FAMILY = 8
"""Arms of the confirmation that may follow: a word of the tail has to hold in it too."""


def after_tail(sweep: SweepResult, replicates: Replicates | None) -> Replicates | None:
    """The runs of the confirmation after those of the tail, which a confirmation would only repeat.

    They are on the same seeds and were looked at first, so what they have shown stands.
    """
    tail = tail_replicates(sweep)
    if tail is None or replicates is None or not replicates.runs:
        return tail if tail is not None else replicates
    theirs = {arm.name: arm.values for arm in tail.arms}
    ours = {arm.name: arm.values for arm in replicates.arms}
    if any(name not in ours or not _are_same(values, ours[name]) for name, values in theirs.items()):
        return replicates
    return replace(replicates, runs=(*tail.runs, *replicates.runs))


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
        for run in sweep.replicates
        for name, trial in named.items()
        if run.seed is not None and run.outcome not in ("running", "waiting") and _is_of(run, trial)
    ]
    if {run.arm for run in runs if not run.missing} != named.keys():
        return None
    arms = (
        Arm(name="best", role="best", values=dict(best.params)),
        Arm(name="guideline default", role="guideline_default", values=dict(default.params)),
    )
    return Replicates(arms=arms, runs=runs, least_comparisons=FAMILY)


def _is_of(run: TrialResult, trial: TrialResult) -> bool:
    return _are_same(run.params, trial.params)


def _are_same(ours: Mapping[str, Value], theirs: Mapping[str, Value]) -> bool:
    return ours.keys() == theirs.keys() and all(is_close(ours[name], theirs[name]) for name in ours)
