"""What `confirm --plan` says: arms, budget, the effect that is seen, and rows that nothing tests."""

from __future__ import annotations

import json
import math

import numpy as np
import optuna
import pytest

from results.comparison.arms import Arm, Replicate
from results.comparison.constants import ASSUMED_NOISE
from results.comparison.paired import compare_all
from results.comparison.power import POWER, smallest_effect
from results.comparison.relation import relation
from results.sweep_result import read_study
from results.verdict.arm_comparisons import compare_arms
from results.verdict.replicates import Replicates
from sweeps.confirm.one_rate import NUM_RATES, as_arm, rates_to_try
from sweeps.confirm.power_plan import PowerPlan, plan_lines, power_plan
from sweeps.confirm.request import ConfirmRequest
from sweeps.confirm.study_specs import confirm_study_spec
from sweeps.errors import ConfigError, StudyMismatch
from sweeps.keeper.keeper import Keeper


def planned(swept: Keeper, **options: object) -> PowerPlan:
    request = ConfirmRequest(**{"margin": 0.005, **options})  # type: ignore[arg-type]
    return power_plan(swept.study_spec, read_study(swept.study), request)


def test_it_names_the_effect_that_the_budget_sees_and_the_runs_that_one_percent_needs(swept: Keeper) -> None:
    plan = planned(swept, trials=400)
    others = len(plan.arms) - 1
    assert plan.seeds_each == (400 - plan.tuning_runs) // len(plan.arms)
    assert plan.sees == smallest_effect(
        noise=ASSUMED_NOISE, comparisons=others, seeds=plan.seeds_each, most_seeds=plan.seeds
    )
    assert plan.seeds_for_one_percent is not None
    assert plan.runs_for_one_percent == plan.seeds_for_one_percent * (others + 1) + plan.tuning_runs
    assert not plan.left_out
    assert all(row.arms and row.sees is not None for row in plan.rows), "every row has an arm"
    assert all(row.sees >= plan.sees for row in plan.rows if row.sees is not None), "two arms see less"
    assert any(row.says.startswith("embeddings") for row in plan.rows)


@pytest.mark.parametrize("options", [{}, {"trials": 25}, {"rows": False, "trials": 8}])
def test_the_runs_that_one_percent_needs_do_see_it_and_fewer_do_not(
    swept: Keeper, options: dict[str, object]
) -> None:
    plan = planned(swept, **options)
    runs = plan.runs_for_one_percent
    assert runs is not None
    assert plan.seeds_for_one_percent is not None
    assert planned(swept, **options | {"trials": runs}).sees <= 0.01
    assert planned(swept, **options | {"trials": runs - 1}).sees > 0.01
    assert f"1% needs {plan.seeds_for_one_percent} seeds " in " ".join(
        line.strip() for line in plan_lines(plan)
    )


@pytest.mark.parametrize("options", [{"trials": 25}, {"trials": 100}, {"hours": 0.7}])
def test_what_a_budget_sees_is_called_worse_in_four_of_five_confirmations(
    swept: Keeper, options: dict[str, float]
) -> None:
    """All arms cost what is seen, each on an even share; judged by the program's own comparisons."""
    plan = planned(swept, **options)
    assert plan.sees is not None
    assert plan.seeds_each < plan.seeds, "the thresholds are for more seeds than an even share"
    draws = np.random.default_rng(0).normal(0, plan.noise, (400, len(plan.arms), plan.seeds_each))
    draws[:, 1:] += plan.sees
    # At lower rates than the best, so that none counts as near the cliff.
    arms = [Arm(name="best", role="best", values={"learning_rate": 1e-4})]
    arms += [Arm(name=name, role="row", values={"learning_rate": 5e-5}) for name in plan.arms[1:]]
    worse = 0
    for losses in 1 + draws:
        runs = [
            Replicate(arm=arm.name, seed=seed, eval_loss=float(found[seed]))
            for seed in range(plan.seeds_each)
            for arm, found in zip(arms, losses, strict=True)
        ]
        found = compare_all(arms, runs, most_seeds=plan.seeds)
        worse += sum(relation(each, plan.margin) == "worse" for each in found.values())
    # Earlier looks add to it, and variances that are moved up towards the other arms' take from it.
    assert worse / 400 / (len(arms) - 1) == pytest.approx(POWER, abs=0.06)


@pytest.mark.parametrize(
    "budgets",
    [
        [{"rows": False, "trials": runs} for runs in range(6, 90, 2)],
        [{"rows": False, "hours": hours / 200} for hours in range(1, 200, 4)],
        [{"hours": hours / 2} for hours in range(1, 9)],
    ],
)
def test_more_runs_or_hours_for_the_same_arms_never_see_less(
    swept: Keeper, budgets: list[dict[str, float]]
) -> None:
    plans = [planned(swept, **budget) for budget in budgets]
    assert len({plan.arms for plan in plans}) == 1
    sees = [math.inf if plan.sees is None else plan.sees for plan in plans]
    assert sees == sorted(sees, reverse=True)
    assert sees[-1] < sees[0]


def test_more_runs_for_a_present_confirmation_keep_its_thresholds_and_never_see_less(swept: Keeper) -> None:
    sweep = read_study(swept.study)
    first = planned(swept, trials=25)
    one_rate = as_arm(rates_to_try(sweep)[0])
    request = ConfirmRequest(margin=0.005, trials=25)
    spec = confirm_study_spec(swept.study_spec, sweep, request, one_rate, NUM_RATES)
    assert spec.replicates is not None
    present = optuna.create_study()
    present.set_user_attr("arms", spec.replicates.described())
    present.set_user_attr("most_seeds", first.seeds)
    plans = [
        power_plan(
            swept.study_spec, sweep, ConfirmRequest(margin=0.005, trials=runs), present=present, known=None
        )
        for runs in (25, 34, 60, 100, 200)
    ]
    assert {plan.seeds for plan in plans} == {first.seeds} == {6}
    sees = [plan.sees for plan in plans]
    assert sees == sorted(sees, reverse=True)
    assert sees[0] == first.sees > sees[1]
    assert {plan.arms_for_one_percent for plan in plans} == {len(first.arms)}
    for plan in plans:
        assert (plan.runs >= plan.runs_for_one_percent) == (plan.sees <= 0.01)


def test_a_small_budget_says_what_it_leaves_out_and_which_rows_nothing_tests(swept: Keeper) -> None:
    plan = planned(swept, trials=24)
    assert plan.runs == 24
    assert plan.left_out
    untested = [row for row in plan.rows if not row.arms]
    assert untested
    lines = plan_lines(plan)
    assert any(line.startswith("Left out by the budget: ") for line in lines)
    said = " ".join(line.strip() for line in lines)
    assert f"Nothing here tests {', '.join(row.says for row in untested)}." in said
    assert "; more runs may add these first." in said
    assert f"({plan.seeds_each} seeds each, an even share)" in said
    assert max(map(len, lines)) <= 80
    with pytest.raises(ConfigError, match="--trials is at least 6"):
        planned(swept, trials=5)


def test_the_noise_is_that_of_seeds_run_before_where_there_are_some(swept: Keeper) -> None:
    sweep = read_study(swept.study)
    arms = [Arm(name=name, role=role, values={}) for name, role in (("best", "best"), ("x", "row"))]  # type: ignore[arg-type]
    runs = [
        Replicate(arm=arm.name, seed=seed, eval_loss=2.0 + 0.02 * (seed % 2) * index)
        for seed in range(4)
        for index, arm in enumerate(arms)
    ]
    known = compare_arms(Replicates(arms=arms, runs=runs), sweep.context)
    request = ConfirmRequest(margin=0.005)
    plan = power_plan(swept.study_spec, sweep, request, known=known)
    assert plan.noise == pytest.approx(known.run_noise / 2.0)
    assert plan.noise_from == "seeds"
    assert "measured on new seeds" in " ".join(plan_lines(plan))
    assert plan.sees > planned(swept).sees
    said = " ".join(line.strip() for line in plan_lines(planned(swept)))
    assert "0.20% of the loss a run: an assumption, until new seeds measure what is then used" in said


def test_hours_say_how_many_runs_they_have_and_what_those_see(swept: Keeper) -> None:
    ample = planned(swept, hours=1000)
    assert ample.runs_in_hours == ample.runs
    assert ample.seconds is not None
    assert "about" in plan_lines(ample)[0]
    few = planned(swept, hours=ample.seconds / 3600 / 6)
    assert few.runs_in_hours is not None
    assert few.runs_in_hours < few.runs / 5
    assert few.seconds == pytest.approx(ample.seconds / 6)
    assert f"about {few.runs_in_hours} in " in plan_lines(few)[0]
    assert few.sees is None or few.sees > ample.sees
    none = planned(swept, hours=1e-9)
    assert (none.sees, {row.sees for row in none.rows}) == (None, {None})
    said = " ".join(line.strip() for line in plan_lines(none))
    assert "nothing: an interval needs 3 seeds of each" in said


def test_a_present_confirmation_is_counted_and_one_of_others_is_refused(swept: Keeper) -> None:
    sweep = read_study(swept.study)
    new = planned(swept)
    one_rate = as_arm(rates_to_try(sweep)[2])
    spec = confirm_study_spec(swept.study_spec, sweep, ConfirmRequest(margin=0.005), one_rate, NUM_RATES)
    assert spec.replicates is not None
    assert any(arm.role == "one_rate" for arm in spec.replicates.arms)
    present = optuna.create_study()
    present.set_user_attr("arms", spec.replicates.described())
    runs = [
        Replicate(arm=arm.name, seed=seed, eval_loss=2.0 + 0.01 * seed)
        for arm in spec.replicates.arms
        for seed in range(2)
    ]
    known = compare_arms(Replicates(arms=spec.replicates.arms, runs=runs), sweep.context)
    plan = power_plan(swept.study_spec, sweep, ConfirmRequest(margin=0.005), present=present, known=known)
    assert (new.done, plan.done) == (0, len(runs) + NUM_RATES)
    assert one_rate.name in plan.arms, "the rate that was tuned, and not just any of those to try"
    assert f"{plan.done} of them made before" in " ".join(plan_lines(plan)[:2])
    with pytest.raises(StudyMismatch, match="--anew"):
        power_plan(swept.study_spec, sweep, ConfirmRequest(margin=0.005, rows=False), present=present)


def test_it_fits_a_terminal_and_is_json(swept: Keeper) -> None:
    plan = planned(swept)
    lines = plan_lines(plan)
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    read = json.loads(json.dumps(plan.to_dict()))
    assert read["arms"][0] == "best"
    assert (read["power"], read["noise_from"]) == (POWER, "assumed")
    assert {row["says"] for row in read["rows"]} == {row.says for row in plan.rows}
