"""The runs on new seeds that a sweep made in seats idle at its end, as the arms of a small confirmation."""

from __future__ import annotations

from results.comparison.arms import Arm, Replicate
from results.sweep_result import SweepResult, TrialResult
from results.verdict.replicates import Replicates
from results.verdict.row_values import is_close


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
    return Replicates(arms=arms, runs=runs)


def _is_of(run: TrialResult, trial: TrialResult) -> bool:
    ours, theirs = run.params, trial.params
    return ours.keys() == theirs.keys() and all(is_close(ours[name], theirs[name]) for name in ours)
