"""A confirmation takes over the runs that the sweep itself made on new seeds, and what they had shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lora_runner.config import TrialConfig
from results.comparison.relation import relation
from results.sweep_result import SweepResult, read_study
from results.verdict.replicates import read_replicates
from results.verdict.verdict import verdict
from sweeps.confirm.request import ConfirmRequest
from sweeps.confirm.study_specs import confirm_study_spec
from sweeps.keeper.keeper import Keeper
from sweeps.plan.specs import StudySpec
from tests.sweeps.confirm.conftest import SWEPT, noisy

Make = Callable[..., Keeper]


@pytest.fixture
def swept_with_tail(make_keeper: Make, pack: Any) -> Keeper:
    """Its best and default have run on four new seeds."""
    keeper = make_keeper(at="with-tail", **SWEPT | {"trials": 25}, tail_replicates=True)
    keeper.register(0, 4.0)
    pack(keeper, noisy(), seats=8).run()
    keeper.close()
    return keeper


def confirmation_of(keeper: Keeper, **options: Any) -> StudySpec:
    wanted = ConfirmRequest(**{"margin": 0.005, "rows": False, **options})
    return confirm_study_spec(keeper.study_spec, read_study(keeper.study), wanted, None, 0)


def test_a_confirmation_does_not_run_them_again(swept_with_tail: Keeper, pack: Any) -> None:
    sweep = read_study(swept_with_tail.study)
    ran = {(run.seed, tuple(run.params.items())) for run in sweep.replicates if run.eval_loss is not None}
    assert len(ran) >= 6
    spec = confirmation_of(swept_with_tail, best=2, trials=16)
    confirm = Keeper(spec, str(swept_with_tail._storage.url))
    pack(confirm, lambda config, percent: noisy(noise=0.5)(config, percent), seats=2).run()
    confirm.leave()
    found = read_replicates(confirm.study)
    assert len({(run.arm, run.seed) for run in found.runs}) == len(found.runs) > len(ran)
    first = {(run.seed, run.arm): run.eval_loss for run in found.runs[: len(ran)]}
    assert first == {
        (
            run.seed,
            "best" if run.params == (sweep.best and sweep.best.params) else "guideline default",
        ): run.eval_loss
        for run in sweep.replicates
        if run.eval_loss is not None
    }
    assert all(run.folder.startswith("confirm/../trials/") for run in found.runs[: len(ran)])


def test_they_are_taken_over_in_the_order_in_which_they_ended(swept_with_tail: Keeper) -> None:
    """Another order would be other looks, and could take back what the sweep has shown."""
    sweep = read_study(swept_with_tail.study)
    ended = sorted((run.ended for run in sweep.replicates if run.ended is not None), reverse=True)
    by_seed = sorted(sweep.replicates, key=lambda run: run.seed or 0)
    runs = [replace(run, ended=at) for run, at in zip(by_seed, ended, strict=False)]
    request = ConfirmRequest(margin=0.005, rows=False)
    plan = confirm_study_spec(
        swept_with_tail.study_spec, replace(sweep, replicates=runs), request, None, 0
    ).replicates
    assert plan is not None
    seeds = [run.seed for run in plan.known]
    assert seeds == [run.seed or 0 for run in reversed(runs) if run.eval_loss is not None]
    assert len(set(seeds)) > 2


def test_what_they_had_shown_of_the_default_stands_in_a_confirmation_with_more_arms(
    swept_with_tail: Keeper,
) -> None:
    before = verdict(swept_with_tail.study).replicates
    assert before is not None
    assert relation(before.comparisons["guideline default"]) == "worse"
    spec = confirmation_of(swept_with_tail, best=20, rows=True)
    confirm = Keeper(spec, str(swept_with_tail._storage.url))
    confirm.leave()
    after = verdict(swept_with_tail.study, confirm.study).replicates
    assert after is not None
    assert len(after.comparisons) >= 19
    assert relation(after.comparisons["guideline default"]) == "worse"


def test_runs_of_a_trial_that_is_no_longer_best_are_not_taken_over(swept_with_tail: Keeper) -> None:
    sweep = read_study(swept_with_tail.study)
    better = replace(sweep.trials[5], eval_loss=1.0)
    changed: SweepResult = replace(sweep, trials=[better, *sweep.trials[:5], *sweep.trials[6:]])
    plan = confirm_study_spec(
        swept_with_tail.study_spec, changed, ConfirmRequest(margin=0.005, rows=False), None, 0
    ).replicates
    assert plan is not None
    assert {run.arm for run in plan.known} == {"guideline default"}


def test_the_loss_of_one_seed_is_that_of_its_run(swept_with_tail: Keeper) -> None:
    def loss(config: TrialConfig) -> float:
        return noisy()(config, 100)

    for run in read_study(swept_with_tail.study).replicates:
        if run.eval_loss is not None:
            assert run.eval_loss == loss(TrialConfig.from_dict(dict(run.config)))
