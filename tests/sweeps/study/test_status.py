"""The status of a study: which trial is the best so far."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState, create_trial

from sweeps.study.read_status import read_status
from sweeps.study.status import ArmProgress


def test_a_trial_stored_complete_before_its_full_budget_is_never_the_best() -> None:
    study = optuna.create_study()
    for loss, num_steps in ((2.5, 100), (1.5, 40)):
        attributes = {"outcome": "complete", "num_steps": num_steps, "config": {"max_steps": 100}}
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=loss, user_attrs=attributes))
    best = read_status(study, target=2).best
    assert best is not None
    assert (best["number"], best["eval_loss"]) == (0, 2.5)


def test_a_confirmation_has_a_mean_of_each_configuration_and_no_best() -> None:
    study = optuna.create_study()
    study.set_user_attr("arms", [{"name": "best"}, {"name": "guideline default"}])
    for arm, loss, steps in (("best", 2.5, 100), ("best", 2.0, 100), ("guideline default", 2.9, 40)):
        attributes = {"outcome": "complete", "num_steps": steps, "config": {"max_steps": 100}, "arm": arm}
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=loss, user_attrs=attributes))
    running = {"arm": "guideline default", "seed": 7, "attempt": 1}
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=running))
    status = read_status(study, target=6)
    assert (status.best, status.leader) == (None, None)
    assert status.arms == [
        ArmProgress(name="best", finished=2, eval_loss=2.25),
        ArmProgress(name="guideline default", ended_early=1, running=1),
    ]
    assert [trial.values for trial in status.running] == [{"configuration": "guideline default", "seed": 7}]
