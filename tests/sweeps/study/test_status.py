"""The status of a study: which trial is the best so far."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState, create_trial

from sweeps.study.read_status import read_status


def test_a_trial_stored_complete_before_its_full_budget_is_never_the_best() -> None:
    study = optuna.create_study()
    for loss, num_steps in ((2.5, 100), (1.5, 40)):
        attributes = {"outcome": "complete", "num_steps": num_steps, "config": {"max_steps": 100}}
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=loss, user_attrs=attributes))
    best = read_status(study, target=2).best
    assert best is not None
    assert (best["number"], best["eval_loss"]) == (0, 2.5)
