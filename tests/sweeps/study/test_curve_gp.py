"""The model of learning curves on known surfaces: what it proposes, what it stops, what it takes up again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from search_spaces import Dimension, SearchSpace
from sweeps.study.curve_gp.curves import Curve
from sweeps.study.curve_gp.decisions import chances, keep_going, least_promising, propose, thaw
from sweeps.study.curve_gp.features import Features, from_unit, params_of, quasi_random, shares_of
from sweeps.study.curve_gp.model import CurveModel

PERCENTS = (20, 40, 60, 80, 100)
RATE = Dimension(name="learning_rate", kind="float", low=4e-5, high=3e-3, log=True, default=2e-4)
SPACE = SearchSpace(
    dimensions=(
        RATE,
        Dimension(name="lora_r", kind="int", low=4, high=128, log=True, default=16),
        Dimension(
            name="lr_scheduler_type",
            kind="categorical",
            choices=("linear", "constant", "cosine"),
            default="linear",
        ),
        Dimension(
            name="warmup_ratio",
            kind="float",
            low=0.0,
            high=0.2,
            default=0.03,
            active_when=("lr_scheduler_type", ("linear", "cosine")),
        ),
    )
)


def final(params: Any, best_rate: float = 8e-4) -> float:
    """Lowest for a constant schedule at `best_rate`; with a cliff to the right, and warmup that helps."""
    away = math.log(params["learning_rate"] / best_rate)
    cliff = max(0.0, away - 0.7) ** 2
    warmup = 0.3 * abs(params["warmup_ratio"] - 0.1) + 0.02 if "warmup_ratio" in params else 0.0
    return 2.5 + 0.03 * away**2 + cliff + warmup + 0.01 * abs(math.log(params["lora_r"] / 16))


def curve(number: int, params: Any, upto: int = 100, state: Any = "ended", end: float | None = None) -> Curve:
    """Falls over the budget to `end`, slower at low rates."""
    end = final(params) if end is None else end
    slow = 0.3 + 0.1 * abs(math.log(params["learning_rate"] / 8e-4))
    reports = {p: end + slow * (100 / p - 1) * 0.1 for p in PERCENTS if p <= upto}
    return Curve(number=number, params=params, reports=reports, state=state)


def at_random(count: int, seed: int = 0, **options: Any) -> list[Curve]:
    shares = np.random.default_rng(seed).random((count, 4)).tolist()
    return [curve(number, params_of(SPACE, share), **options) for number, share in enumerate(shares)]


def search(seed: int, trials: int, *, upto: Callable[[int], int] = lambda _: 100) -> list[Curve]:
    curves: list[Curve] = []
    for number in range(trials):
        params = propose(SPACE, curves, number=number, seed=seed)
        curves.append(curve(number, params, upto(number)))
    return curves


# --- proposals ------------------------------------------------------------------------------------


def test_it_comes_nearer_to_the_optimum_than_chance_by_far() -> None:
    ours, chance = [], []
    for seed in range(2):
        ours.append(min(final(c.params) for c in search(seed, 20)))
        chance.append(min(final(c.params) for c in at_random(20, seed)))
    assert max(ours) < min(chance)
    assert np.mean(ours) - 2.5 < 0.3 * (np.mean(chance) - 2.5)


def test_it_learns_from_curves_that_were_stopped_early() -> None:
    """Only every fourth trial is complete."""
    curves = search(1, 24, upto=lambda number: 100 if number % 4 == 0 else 20)
    later = [final(c.params) for c in curves[12:]]
    assert np.median(later) < np.quantile([final(c.params) for c in at_random(200)], 0.1)


def test_proposals_lie_in_the_space_and_depend_on_nothing_but_curves_number_and_seed() -> None:
    curves = [*at_random(9), *at_random(3, seed=7, upto=40, state="running")]
    again = [
        Curve(number=c.number, params=dict(c.params), reports=dict(c.reports), state=c.state) for c in curves
    ]
    first = propose(SPACE, curves, number=12, seed=5)
    CurveModel(SPACE, at_random(5))  # whatever was asked between
    assert propose(SPACE, again, number=12, seed=5) == first
    assert propose(SPACE, curves, number=12, seed=6) != first
    for number in range(40):
        params = propose(SPACE, curves[:7], number=number, seed=5)
        assert params == {d.name: params[d.name] for d in SPACE.dimensions if d.is_active(params)}
        assert all(SPACE[name].contains(value) for name, value in params.items())
        assert type(params["lora_r"]) is int


def test_trials_that_run_are_not_proposed_again() -> None:
    """A pack asks for eight trials before any of them has reported."""
    curves = at_random(12)
    for number in range(12, 20):
        params = propose(SPACE, curves, number=number, seed=0)
        curves.append(Curve(number=number, params=params, reports={}, state="running"))
    points = Features.of(SPACE).points([c.params for c in curves[12:]])
    apart = [np.linalg.norm(a - b) for i, a in enumerate(points) for b in points[:i]]
    assert min(apart) > 0.02
    assert np.median(apart) > 0.2


def test_trials_that_broke_drive_proposals_away() -> None:
    broken = [
        Curve(number=9 + i, params=c.params, reports={20: final(c.params)}, state="broken")
        for i, c in enumerate(at_random(20, seed=3))
        if c.params["learning_rate"] > 5e-4
    ]
    curves = [c for c in at_random(30) if c.params["learning_rate"] < 5e-4][:9]
    proposed = [propose(SPACE, [*curves, *broken], number=30 + n, seed=0)["learning_rate"] for n in range(3)]
    assert max(map(float, proposed)) < 7e-4
    without = [propose(SPACE, curves, number=30 + n, seed=0)["learning_rate"] for n in range(3)]
    assert max(map(float, without)) > 7e-4


@pytest.mark.parametrize(
    "curves",
    [
        [],
        at_random(1),
        at_random(12, state="broken"),
        [Curve(number=n, params=c.params, reports={}, state="broken") for n, c in enumerate(at_random(12))],
        [
            Curve(number=n, params=c.params, reports=dict.fromkeys(PERCENTS, 2.0))
            for n, c in enumerate(at_random(12))
        ],
        at_random(12, upto=0, state="running"),
        [
            Curve(number=n, params=SPACE.first_trials or at_random(1)[0].params, reports={20: 1e300})
            for n in range(9)
        ],
        [*at_random(8), *(curve(8 + n, c.params, end=1e12) for n, c in enumerate(at_random(3)))],
    ],
    ids=["none", "one", "all broke", "all broke at once", "ties", "no reports", "one point", "huge losses"],
)
def test_what_is_odd_is_decided_too(curves: Sequence[Curve]) -> None:
    params = propose(SPACE, curves, number=len(curves), seed=0, startup=1)
    assert all(SPACE[name].contains(value) for name, value in params.items())
    found = chances(SPACE, curves)
    assert all(0 <= chance.wins <= 1 for chance in found.values())
    assert len(found) == sum(bool(c.reports) and c.state != "broken" for c in curves)
    assert thaw(SPACE, curves, has_new=False) == []


def test_a_space_of_fixed_values_alone() -> None:
    space = SearchSpace(dimensions=(Dimension(name="lora_r", kind="int", low=8, high=8, default=8),))
    curves = [Curve(number=n, params={"lora_r": 8}, reports={20: 3.0 - n, 100: 2.0 - n}) for n in range(9)]
    assert propose(space, curves, number=9, seed=0) == {"lora_r": 8}
    assert keep_going(space, curves, 8)


# --- what goes on ---------------------------------------------------------------------------------


def test_a_trial_far_behind_is_stopped_and_one_that_leads_is_not() -> None:
    curves = at_random(16)
    bad = curve(
        16, {"learning_rate": 4.5e-5, "lora_r": 100, "lr_scheduler_type": "cosine", "warmup_ratio": 0.2}, 20
    )
    good = curve(17, {"learning_rate": 8e-4, "lora_r": 16, "lr_scheduler_type": "constant"}, 20)
    assert not keep_going(SPACE, [*curves, bad], 16)
    assert keep_going(SPACE, [*curves, good], 17)


def test_the_only_trial_and_one_without_a_value_go_on() -> None:
    [only] = at_random(1, upto=20, state="running")
    assert keep_going(SPACE, [only], 0)
    assert keep_going(SPACE, [*at_random(9), Curve(number=9, params=only.params, reports={})], 9)


def test_the_frozen_trial_that_may_win_is_taken_up_and_the_hopeless_one_is_not() -> None:
    curves = at_random(16)
    hopeless = {"learning_rate": 4.5e-5, "lora_r": 100, "lr_scheduler_type": "cosine", "warmup_ratio": 0.2}
    good = {"learning_rate": 8e-4, "lora_r": 16, "lr_scheduler_type": "constant"}
    frozen = [curve(16, hopeless, 40, "frozen"), curve(17, good, 40, "frozen")]
    assert thaw(SPACE, [*curves, *frozen], has_new=True) == [17]
    assert thaw(SPACE, [*curves, *frozen], has_new=False) == [17]
    assert least_promising(SPACE, [*curves, *frozen]) == [16, 17]


def test_of_hopeless_frozen_trials_the_worst_go_first() -> None:
    """Their chances are tails, where what is known less well would seem to be better."""
    curves = at_random(16)
    rates = {16: (4.5e-5, 80), 17: (6.5e-5, 80), 18: (4.7e-5, 20), 19: (5.5e-5, 60)}
    fixed = {"lora_r": 100, "lr_scheduler_type": "cosine", "warmup_ratio": 0.2}
    frozen = [curve(n, {"learning_rate": r, **fixed}, upto, "frozen") for n, (r, upto) in rates.items()]
    found = chances(SPACE, [*curves, *frozen])
    assert max(found[n].wins for n in rates) < 1e-3
    by_chance = sorted(rates, key=lambda n: found[n].wins)
    ends = {n: curve(n, {"learning_rate": r, **fixed}, 100).reports[100] for n, (r, _) in rates.items()}
    by_end = sorted(rates, key=lambda n: -ends[n])
    assert by_chance != by_end
    assert least_promising(SPACE, [*curves, *frozen]) == by_end


def test_a_trial_is_not_frozen_and_taken_up_by_the_same_reports() -> None:
    curves = at_random(16)
    for seed in range(8):
        [late] = at_random(1, seed=100 + seed, upto=40, state="running")
        running = Curve(number=16, params=late.params, reports=late.reports, state="running")
        frozen = Curve(number=16, params=late.params, reports=late.reports, state="frozen")
        if not keep_going(SPACE, [*curves, running], 16):
            assert thaw(SPACE, [*curves, frozen], has_new=True) == []


# --- points ---------------------------------------------------------------------------------------


def test_inactive_dimensions_have_a_place_of_their_own() -> None:
    features = Features.of(SPACE)
    base: dict[str, Any] = {"learning_rate": 2e-4, "lora_r": 16, "lr_scheduler_type": "linear"}
    none, low, high = features.points([base, {**base, "warmup_ratio": 0.0}, {**base, "warmup_ratio": 0.2}])
    assert np.linalg.norm(none - low) == pytest.approx(np.linalg.norm(none - high))
    assert np.linalg.norm(low - high) == pytest.approx(1.0)


def test_shares_and_values_go_both_ways() -> None:
    for current in at_random(50):
        assert params_of(SPACE, shares_of(SPACE, current.params)) == pytest.approx(current.params)
    assert [from_unit(RATE, share) for share in (0.0, 1.0)] == [4e-5, 3e-3]


def test_quasi_random_points_cover_the_space_evenly() -> None:
    points = quasi_random(64, 3, start=17, shift=np.array([0.3, 0.9, 0.1]))
    assert points.shape == (64, 3)
    cells = {tuple((point * 3).astype(int)) for point in points}
    assert len(cells) == 27
    assert np.array_equal(points[5:9], quasi_random(4, 3, start=22, shift=np.array([0.3, 0.9, 0.1])))


# --- the fit --------------------------------------------------------------------------------------


def test_the_gradient_of_the_fit_is_that_of_its_loss() -> None:
    curves = at_random(7, upto=60)
    # A trial that broke has a value at 100% too, and stands between the others.
    curves[2] = replace(curves[2], state="broken")
    model = CurveModel(SPACE, curves)
    means, deviations = model._prior()
    points = model._data.points
    arguments = (model._squares(points, points), means, deviations)
    at = means + 0.3 * np.random.default_rng(0).standard_normal(len(means))
    _, gradient = model._loss(at, *arguments)
    for index, step in enumerate(1e-5 * np.eye(len(at))):
        slope = (model._loss(at + step, *arguments)[0] - model._loss(at - step, *arguments)[0]) / 2e-5
        assert gradient[index] == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_the_loss_of_the_fit_is_the_density_of_its_covariance() -> None:
    """Computed from distinct times and trials, and in full, they agree."""
    model = CurveModel(SPACE, [*at_random(5, upto=60), *at_random(3, seed=1)])
    means, deviations = model._prior()
    points, data = model._data.points, model._data
    loss, _ = model._loss(means, model._squares(points, points), means, deviations)
    model._parameters = means
    of_trial = points[data.trial]
    covariance = model._covariance(of_trial, data.time, of_trial, data.time)
    covariance += (data.trial[:, None] == data.trial) * model._own(data.time, data.time)
    covariance += np.eye(len(data.value)) * math.exp(model._value("noise"))
    _, log_determinant = np.linalg.slogdet(covariance)
    full = 0.5 * (data.value @ np.linalg.solve(covariance, data.value) + log_determinant)
    assert loss == pytest.approx(full, rel=1e-9)


def test_finals_are_certain_where_trials_have_ended_and_uncertain_where_they_have_not() -> None:
    model = CurveModel(SPACE, [*at_random(10), *at_random(4, seed=5, upto=20, state="running")])
    means, covariance = model.finals()
    deviation = np.sqrt(np.diag(covariance))
    assert deviation[:10].max() < 0.3 * deviation[10:].min()
    order = np.argsort([final(c.params) for c in model.curves[:10]])
    assert np.array_equal(np.argsort(means[:10]), order)


def test_many_reports_are_thinned_out_and_none_of_the_last_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.study.curve_gp.model.MAX_REPORTS", 30)
    model = CurveModel(SPACE, at_random(20))
    assert model.num_reports == 30
    assert {
        index for index, time in zip(model._data.trial, model._data.time, strict=True) if time == 1.0
    } == set(range(20))
