"""What samplers are shown: pruned trials with expected values, every trial in the present space."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces import space_for
from sweeps.study.pruning.expected_values import expected_values
from sweeps.study.samplers import make_sampler
from sweeps.study.sampling.seen_trials import distribution_of, in_present_space, with_pruned_values

SPACE = space_for(model_size=8.03e9, max_steps=100, train_embeddings=False)


def trial(number: int, reports: dict[int, float], *, outcome: str = "pruned", **params: Any) -> FrozenTrial:
    ended = TrialState.COMPLETE if outcome == "complete" else TrialState.PRUNED
    distributions = {name: distribution_of(SPACE[name]) for name in params}
    made = create_trial(
        state=ended,
        value=reports[100] if ended == TrialState.COMPLETE else None,
        params=params,
        distributions=distributions,
        intermediate_values=reports,
        user_attrs={"outcome": outcome},
    )
    made.number = number
    return made


def test_a_pruned_trial_is_expected_to_go_on_as_those_that_did() -> None:
    trials = [
        trial(0, {40: 3.0, 80: 2.5, 100: 2.4}, outcome="complete"),
        trial(1, {40: 3.2, 80: 2.5, 100: 2.3}, outcome="complete"),
        trial(2, {40: 3.1, 80: 2.8}),
        trial(3, {40: 3.3}),
    ]
    # 40% to 80%: -0.5, -0.7, -0.3; 80% to the end: -0.1, -0.2.
    assert expected_values(trials) == pytest.approx({0: 2.4, 1: 2.3, 2: 2.65, 3: 2.65})


def test_the_order_at_a_rung_stays_and_a_broken_trial_is_the_worst() -> None:
    trials = [
        trial(0, {50: 2.0, 100: 1.0}, outcome="complete"),
        trial(1, {50: 2.1}),
        trial(2, {50: 2.2}),
        trial(3, {50: 0.5}, outcome="diverged"),
        trial(4, {}, outcome="out_of_memory"),
        trial(5, {50: math.nan}),
    ]
    found = expected_values(trials)
    assert found[0] < found[1] < found[2] == found[3] == found[4] == found[5]


def test_a_value_far_off_does_not_drown_the_others() -> None:
    trials = [trial(n, {50: 2.0 + n / 10, 100: 1.0 + n / 10}, outcome="complete") for n in range(5)]
    found = expected_values([*trials, trial(5, {50: 1e6})])
    assert found[4] < found[5] < 3.0
    assert expected_values([]) == {}


def test_a_hyperparameter_that_a_trial_lacks_has_its_default_there() -> None:
    lacking = trial(0, {50: 2.0}, learning_rate=1e-4, lr_scheduler_type="constant")
    whole = trial(
        1, {100: 1.0}, outcome="complete", learning_rate=2e-4, lr_scheduler_type="linear", warmup_ratio=0.2
    )
    seen = with_pruned_values([lacking, whole], SPACE)
    assert seen[0].params["warmup_ratio"] == SPACE["warmup_ratio"].default
    assert seen[1].params["warmup_ratio"] == 0.2
    assert [t.state for t in seen] == [TrialState.COMPLETE] * 2
    assert "warmup_ratio" not in lacking.params, "what is stored stays"
    assert lacking.state == TrialState.PRUNED


def test_trials_from_before_a_range_was_widened_have_its_present_range() -> None:
    earlier = trial(0, {100: 1.0}, outcome="complete", learning_rate=2e-4)
    earlier.distributions = {"learning_rate": FloatDistribution(1e-4, 5e-4, log=True)}
    outside = trial(1, {100: 1.0}, outcome="complete", learning_rate=2e-4)
    outside.params = {"learning_rate": 0.5}
    outside.distributions = {"learning_rate": FloatDistribution(0.1, 1.0, log=True)}
    seen = in_present_space([earlier, outside], SPACE)
    assert seen[0].distributions["learning_rate"] == distribution_of(SPACE["learning_rate"])
    assert seen[1] is outside


def far(rate: float) -> float:
    """Distance from the best rate, 3e-4, in natural log; drawn at random 0.8 in the median."""
    return abs(math.log(rate / 3e-4))


def asked(sampler: str, study: optuna.Study) -> optuna.Trial:
    search = {"seed": 0, "sampler": sampler, "sampler_options": {}, "startup_trials": 5}
    study.sampler = make_sampler(search, SPACE, len(study.trials))
    return study.ask()


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_a_sampler_uses_the_whole_of_a_range_that_was_widened(sampler: str) -> None:
    """Optuna's own keep to the first range, or leave the hyperparameter to chance."""
    study, wide = optuna.create_study(), SPACE["learning_rate"]
    for number in range(12):
        rate = 4e-5 * 2.5 ** (number / 12)
        params = {"learning_rate": rate, "lr_scheduler_type": "constant"}
        made = trial(number, {100: -math.log(rate)}, outcome="complete", **params)
        made.distributions = made.distributions | {"learning_rate": FloatDistribution(4e-5, 1e-4, log=True)}
        study.add_trial(made)
    drawn = [asked(sampler, study) for _ in range(2 if sampler == "gp" else 8)]
    assert max(float(wide.suggest(each)) for each in drawn) > 1e-4
    assert all("learning_rate" in (each.relative_params or {}) for each in drawn)


def test_a_gp_closes_in_on_the_best_of_mostly_pruned_trials() -> None:
    study = optuna.create_study()
    for number in range(16):
        rate = 4e-5 * 25 ** (number / 15)
        params = {"learning_rate": rate, "lr_scheduler_type": "constant"}
        reports = {40: 2.0 + far(rate) ** 2, 100: 1.9 + far(rate) ** 2}
        if number in (1, 8, 15):
            study.add_trial(trial(number, reports, outcome="complete", **params))
        else:
            study.add_trial(trial(number, {40: reports[40]}, **params))
    for _ in range(2):
        new = asked("gp", study)
        assert "warmup_ratio" in new.relative_params, "although no trial so far had one"
        assert far(SPACE.suggest(new)["learning_rate"]) < 0.4


def test_cma_es_goes_from_generation_to_generation_of_pruned_trials() -> None:
    """The trials' schedulers differ, so some have a warmup and some none."""
    study, distances = optuna.create_study(), []
    for number in range(40):
        new = asked("cmaes", study)
        rate = float(SPACE.suggest(new)["learning_rate"])
        new.report(2.0 + far(rate) ** 2, 40)
        if number == 0:
            study.tell(new, 2.0 + far(rate) ** 2)
        else:
            study.tell(new, state=TrialState.PRUNED)
        distances.append(far(rate))
    assert len({"warmup_ratio" in t.params for t in study.trials}) == 2
    assert study.trials[-1].system_attrs["cma:generation"] >= 4
    assert sorted(distances[-15:])[7] < 0.5
