"""What is said of frozen trials, and how they are counted, from a study to the report's table."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.trial import FrozenTrial

from results.answer.run_facts import read_run_facts
from results.sweep_result import read_study
from results.text.answer import done_text
from results.text.frozen import frozen_text, kept_text, outcome_text


@pytest.mark.parametrize(
    ("step", "max_steps", "percent", "is_at_rest", "text"),
    [
        (24, 40, 60, False, "frozen at step 24 of 40: kept on disk, may go on"),
        (24, 40, 60, True, "frozen at step 24 of 40: kept on disk, may go on if `trials` is raised"),
        (24, None, 60, False, "frozen at step 24: kept on disk, may go on"),
        (None, 40, 60, False, "frozen at 60%: kept on disk, may go on"),
        (None, None, None, False, "frozen: kept on disk, may go on"),
    ],
)
def test_where_a_trial_was_frozen(
    step: int | None, max_steps: int | None, percent: int | None, is_at_rest: bool, text: str
) -> None:
    assert frozen_text(step, max_steps, percent, is_at_rest=is_at_rest) == text


def test_what_a_sweep_keeps() -> None:
    assert kept_text(0) == ""
    assert kept_text(1) == "1 frozen trial keeps its checkpoint and may go on if `trials` is raised."
    assert kept_text(3) == "3 frozen trials keep their checkpoints and may go on if `trials` is raised."


@pytest.mark.parametrize("is_at_rest", [False, True])
def test_frozen_trials_count_as_finished_once_the_sweep_has_ended(
    make_study: Callable[..., optuna.Study], make_trial: Callable[..., FrozenTrial], is_at_rest: bool
) -> None:
    attrs = {"outcome": "frozen", "frozen": 60, "num_steps": 24, "at_rest": is_at_rest or None}
    frozen = make_trial(outcome="running", reports={60: 2.5}, attrs=attrs)
    study = make_study(make_trial(2.0), make_trial(2.1), make_trial(2.2), frozen)
    sweep = read_study(study)
    trial = sweep.trials[3]
    assert outcome_text(trial).startswith("frozen at step 24")
    assert outcome_text(trial).endswith("raised" if is_at_rest else "may go on")
    run = read_run_facts(sweep, run_folder="runs/t", target=4)
    assert run.is_unfinished == (not is_at_rest)
    assert run.finished == 3 + is_at_rest
    assert f"{3 + is_at_rest} of 4 trials (3 complete, 1 frozen)" in done_text(run)
