"""Which configurations a confirmation runs again, and the learning rates tried as one for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from results.comparison.arms import Arm
from results.errors import NothingToSay
from results.sweep_result import SweepResult, TrialResult, read_study
from results.verdict.arm_comparisons import values_of
from results.verdict.row_values import has_value_of
from results.verdict.verdict import verdict
from sweeps.confirm.arms import choose_arms, rows_with_arms, space_with
from sweeps.confirm.one_rate import rates_to_try
from sweeps.keeper.keeper import Keeper

Make = Callable[..., Keeper]


def arms_by_name(swept: Keeper, **options: Any) -> dict[str, Arm]:
    arms = choose_arms(read_study(swept.study), swept.study_spec, **options)
    assert len({arm.name for arm in arms}) == len(arms)
    return {arm.name: arm for arm in arms}


def test_the_best_comes_first_then_the_default_then_each_tested_row_at_its_own_value(swept: Keeper) -> None:
    sweep = read_study(swept.study)
    best = sweep.best
    assert best is not None
    assert sweep.guideline_default is not None
    arms = arms_by_name(swept)
    assert list(arms)[:2] == ["best", "guideline default"]
    assert arms["best"].values == best.params
    assert arms["guideline default"].values == sweep.guideline_default.params
    rate = arms["learning_rate 2e-4"]
    assert set(rate.rows) >= {"scenario.general", "size.7-8b", "embedding.main_lr", "method.qlora"}
    main, ratio = float(best.params["learning_rate"]), float(best.params["embedding_lr_ratio"])
    assert rate.values["learning_rate"] == 2e-4
    assert rate.values["embedding_lr_ratio"] == pytest.approx(main * ratio / 2e-4), (
        "the rate stays, not the ratio"
    )
    for name, arm in arms.items():
        if arm.role != "row":
            continue
        differing = {k for k in arm.values.keys() & best.params.keys() if arm.values[k] != best.params[k]}
        assert differing <= {"learning_rate", "embedding_lr_ratio"} or len(differing) == 1, (name, differing)
    answer = {row.row.id: row for row in verdict(swept.study).rows}
    named = {row for arm in arms.values() if arm.role == "row" for row in arm.rows}
    assert all(answer[row].is_tested for row in named)
    assert "boundary.same_rate" not in named
    # A row is either tried by an arm of its own, or holds the best, or wants what the best lacks.
    for row in ("scheduler.short", "warmup.ratio", "embedding.ratio"):
        assert row in named or answer[row].measurement.position in ("inside", "not_tested")


def test_rows_that_come_to_one_configuration_share_an_arm_and_no_rows_means_none(swept: Keeper) -> None:
    arms = arms_by_name(swept)
    hashes = [swept.study_spec.trial_config(arm.values).hash() for arm in arms.values()]
    assert len(set(hashes)) == len(hashes)
    assert list(arms_by_name(swept, rows=False)) == ["best", "guideline default"]
    three = arms_by_name(swept, rows=False, best=3)
    finished = read_study(swept.study).finished
    assert [arm.role for arm in three.values()] == ["best", "guideline_default", "best", "best"]
    assert [arm.values for arm in three.values()][2:] == [trial.params for trial in finished[1:3]]


def test_a_constant_schedule_brings_no_warmup_and_another_one_gets_the_default(swept: Keeper) -> None:
    for arm in arms_by_name(swept).values():
        config = swept.study_spec.trial_config(arm.values)
        assert ("warmup_ratio" in arm.values) == (config.lr_scheduler_type != "constant")


def test_the_space_has_room_for_every_arm(swept: Keeper) -> None:
    arms = choose_arms(read_study(swept.study), swept.study_spec)
    changed = {"learning_rate": 0.5, "lr_scheduler_type": "inverse_sqrt"}
    far = replace(arms[0], values={**arms[0].values, **changed})
    space = space_with(swept.study_spec.space, (*arms, far))
    assert all(space[name].contains(value) for arm in (*arms, far) for name, value in arm.values.items())
    assert space["learning_rate"].low == swept.study_spec.space["learning_rate"].low


def test_one_rate_is_tried_between_the_two_of_the_best(swept: Keeper) -> None:
    best = read_study(swept.study).best
    assert best is not None
    rates = rates_to_try(read_study(swept.study))
    main = float(best.params["learning_rate"])
    ends = sorted((main, main * float(best.params["embedding_lr_ratio"])))
    tried = [float(arm.values["learning_rate"]) for arm in rates]
    assert tried == sorted(tried)
    assert tried[-1] / tried[0] >= 3.99
    if ends[1] / ends[0] >= 4:
        assert (tried[0], tried[-1]) == pytest.approx(ends, rel=1e-5)
    for arm in rates:
        config = swept.study_spec.trial_config(arm.values)
        assert config.embedding_learning_rate == config.learning_rate


def test_a_best_that_is_the_default_has_nothing_to_be_compared_with(make_keeper: Make, pack: Any) -> None:
    keeper = make_keeper(at="one", trials=1)
    with pytest.raises(NothingToSay, match="no trial that finished its full budget"):
        choose_arms(read_study(keeper.study), keeper.study_spec)
    pack(keeper).run()
    with pytest.raises(NothingToSay, match=r"trial 0 .* it is the guideline default itself"):
        choose_arms(read_study(keeper.study), keeper.study_spec, rows=False)


# --- rows that hold the best, and retuned values --------------------------------------------------


def swept_at(swept: Keeper, *, retuned: dict[str, Any] | None = None, **changed: Any) -> SweepResult:
    """The sweep with its best trial moved, and a close one with other settings."""
    sweep = read_study(swept.study)
    assert sweep.best is not None

    def moved(trial: TrialResult, changed: dict[str, Any]) -> TrialResult:
        arm = Arm(name="moved", role="best", values={**trial.params, **changed})
        return replace(trial, params=dict(arm.values), values=values_of(arm, sweep.context))

    best = moved(sweep.best, changed)
    assert best.eval_loss is not None
    trials = [trial for trial in sweep.trials if trial.number != best.number]
    if retuned is not None:
        trials.append(replace(moved(best, retuned), number=999, eval_loss=best.eval_loss * 1.001))
    return replace(sweep, trials=[*trials, best])


def test_a_rate_below_and_one_above_the_best_are_always_tried(swept: Keeper) -> None:
    for best in (1e-5, 2e-4, 1.05e-3, 2e-3):
        sweep = swept_at(swept, learning_rate=best)
        arms = [arm for arm in choose_arms(sweep, swept.study_spec) if arm.role in ("row", "contrast")]
        rates = {float(arm.values["learning_rate"]) for arm in arms}
        for low, high in ((best / 3, best / 1.5), (1.5 * best, 3 * best)):
            assert any(low <= rate <= high for rate in rates), (best, rates)
    space = space_with(swept.study_spec.space, tuple(arms))
    assert all(space["learning_rate"].contains(rate) for rate in rates), "also beyond the range"


def test_every_row_that_holds_the_best_has_an_arm_outside_it(swept: Keeper) -> None:
    """Also a boundary at the best itself, and names; of equal use the rival that the sweep did best with."""
    for changed in (
        {"learning_rate": 1e-3},
        {"learning_rate": 2e-4, "lr_scheduler_type": "cosine", "warmup_ratio": 0.05},
        {"learning_rate": 1.5e-4, "embedding_lr_ratio": 0.25, "lr_scheduler_type": "linear"},
        {"embedding_lr_ratio": 1.0},
    ):
        sweep = swept_at(swept, **changed)
        best = sweep.best
        assert best is not None
        arms = choose_arms(sweep, swept.study_spec)
        for row in rows_with_arms(sweep):
            if not has_value_of(row, best.values.get(row.parameter or "")):
                continue
            testing = [arm for arm in arms if row.id in arm.rows and arm.role in ("row", "contrast")]
            assert len(testing) == 1, row.id
            value = values_of(testing[0], sweep.context)[row.parameter or ""]
            assert not has_value_of(row, value), row.id


def test_one_arm_outside_serves_several_rows(swept: Keeper) -> None:
    sweep = swept_at(swept, lr_scheduler_type="linear", warmup_ratio=0.05)
    arms = choose_arms(sweep, swept.study_spec)
    warmup = [arm for arm in arms if arm.name.startswith("warmup") and arm.role == "contrast"]
    assert [arm.values["warmup_ratio"] for arm in warmup] == [0.0]
    assert {"warmup.ratio", "warmup.share_of_steps"} <= set(warmup[0].rows)


def test_the_sweeps_best_trial_inside_a_row_is_run_again_unless_it_is_far_behind(swept: Keeper) -> None:
    near = swept_at(swept, learning_rate=1e-3, retuned={"learning_rate": 2e-4, "embedding_lr_ratio": 0.3})
    arms = {arm.name: arm for arm in choose_arms(near, swept.study_spec)}
    assert arms["trial 999"].role == "retuned"
    assert set(arms["trial 999"].rows) >= {"scenario.general", "method.qlora"}
    assert near.best is not None
    far = replace(
        near,
        trials=[
            replace(trial, eval_loss=near.best.eval_loss * 1.2) if trial.number == 999 else trial
            for trial in near.trials
        ],
    )
    assert "trial 999" not in {arm.name for arm in choose_arms(far, swept.study_spec)}


def test_the_arms_that_test_the_most_rows_come_first(swept: Keeper) -> None:
    arms = choose_arms(read_study(swept.study), swept.study_spec)
    tested = [len(arm.rows) for arm in arms[2:] if not arm.name.startswith("learning_rate ")]
    assert tested == sorted(tested, reverse=True)
    assert arms[2].rows
