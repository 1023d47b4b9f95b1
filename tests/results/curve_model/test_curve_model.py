"""The curve model: known truths, runs that lie off, and losses that were hidden from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.curves.hidden_rates import hidden_rank_errors, observed
from benchmarks.curves.simulated import SHAPES, simulate
from benchmarks.published_curves import COLUMNS, hidden_rates, models_of, on_simulated
from results.curve_model.fit import fit, log_posterior, padded
from results.curve_model.hyperparameters import (
    FITTED,
    PRIOR_SPREAD,
    START,
    Hyperparameters,
    fitted,
    fitted_without,
)
from results.curve_model.points import CurvePoints, places, points_of
from results.curve_model.posterior import CurvePosterior
from results.curve_model.shape import noise
from results.published.table import parse_columns, read_table

SHARED = Path(__file__).parents[4] / "shared" / "data" / "published_lora_sft_sweeps.csv"
needs_table = pytest.mark.skipif(
    not SHARED.is_file(), reason="the published table is not part of the repository"
)


def runs(noise: float = 0.0002, seed: int = 0, **changed: float) -> list[tuple[dict[str, float], float]]:
    """Two ranks at five rates, best near 4e-4; `changed`: another loss at a rate ("rate_4e-4")."""
    rng = np.random.default_rng(seed)
    found = []
    for rank in (8, 32):
        for rate in (4e-5, 1e-4, 2e-4, 4e-4, 8e-4):
            far = np.log10(rate / 4e-4)
            loss = 0.6 * np.exp(0.02 * far**2 + 0.001 * (rank == 8)) + rng.normal(0, noise)
            found.append(({"learning_rate": rate, "lora_r": rank}, changed.get(f"rate_{rate:g}", loss)))
    return found


def cost(points: CurvePoints, rate: float, best: float = 4e-4) -> tuple[float, float, float]:
    at = places([{"learning_rate": r, "lora_r": 32} for r in (rate, best)])
    difference = CurvePosterior(fitted(), points).differences(*at)[0]
    low, middle, high = (difference.quantile(share) for share in (0.05, 0.5, 0.95))
    return low, middle, high


# --- one curve ------------------------------------------------------------------------------------


def test_a_cost_between_two_rates_holds_the_true_curve():
    covered = []
    for seed in range(8):
        points = points_of(runs(seed=seed))
        for rate in (6e-5, 1.5e-4, 3e-4, 6e-4):
            low, _, high = cost(points, rate)
            covered.append(low < 2 * np.log10(rate / 4e-4) ** 2 < high)
            assert high - low < 1.5
    assert np.mean(covered) >= 0.9


def test_uncertainty_grows_away_from_what_was_tried():
    points = points_of(runs())
    widths = [high - low for low, _, high in (cost(points, rate) for rate in (6e-4, 1.2e-3, 3e-3))]
    assert widths[0] < widths[1] < widths[2]
    assert widths[2] > 5 * widths[0]


def test_one_run_that_lies_off_does_not_bend_the_curve():
    # Twice at every rate, and one of the runs at 2e-4 ended 3% higher.
    twice = [*runs(seed=1), *runs(seed=2)]
    off = [*twice[:-3], (twice[-3][0], twice[-3][1] * 1.03), *twice[-2:]]
    assert off[-3][0]["learning_rate"] == 2e-4
    assert cost(points_of(off), 2e-4) == pytest.approx(cost(points_of(twice), 2e-4), abs=0.05)


def test_what_other_settings_do_widens_the_interval():
    quiet, loud = (cost(points_of(runs(noise=spread, seed=3)), 2e-4) for spread in (0.0002, 0.006))
    assert loud[2] - loud[0] > 2 * (quiet[2] - quiet[0])


def test_near_divergence_is_no_point():
    points = points_of([*runs(), ({"learning_rate": 2e-3, "lora_r": 8}, 1.9)])
    assert (len(points), points.near_divergence) == (10, 1)
    with pytest.raises(ValueError, match="losses above 0"):
        points_of([({"learning_rate": 1e-3}, -0.1)])


def test_draws_and_differences_are_of_one_posterior():
    points = points_of(runs(seed=5))
    posterior = CurvePosterior(fitted(), points)
    at = places([{"learning_rate": rate, "lora_r": 16} for rate in (1e-4, 1e-3, 4e-4)])
    drawn = posterior.draws(*at, 8000, seed=1)
    for index, difference in enumerate(posterior.differences(*at)):
        ours = np.quantile(drawn[:, index] - drawn[:, -1], (0.05, 0.5, 0.95))
        theirs = [difference.quantile(share) for share in (0.05, 0.5, 0.95)]
        assert ours == pytest.approx(theirs, abs=0.06 * (theirs[2] - theirs[0]))
    assert posterior.expected(*at) == pytest.approx(drawn.mean(axis=0), abs=0.1)


# --- models unlike those it was fitted on -----------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_words_on_models_simulated_otherwise_are_right(shape):
    found = on_simulated(fitted(), shape, 16, seed=7)
    decided = [each for each in found if each.decided]
    assert len(decided) >= 0.25 * len(found)
    assert sum(each.wrong for each in decided) <= 0.05 * len(decided) + 2  # two of chance, in some 60 words
    assert np.mean([each.linear_wrong for each in found]) > 0.05  # the task is not trivial


# --- fitting --------------------------------------------------------------------------------------


def test_a_fit_finds_the_noise_and_the_fall():
    rng = np.random.default_rng(3)
    models = []
    for slope in rng.normal(6, 1, 6):
        rate = np.repeat(np.log10([2e-5, 4e-5, 8e-5, 1.6e-4]), 4)
        rank = np.tile([2.0, 3.0, 4.0, 5.0], 4)
        loss = -slope * (rate + 3.5) + rng.normal(0, 0.015, len(rate))
        models.append(CurvePoints(rate=rate, rank=rank, loss=loss))
    found = fit(models, rounds=1, steps=12)
    assert found.slope == pytest.approx(6, abs=1)
    assert noise(START, rate[:1])[0] == pytest.approx(0.05, abs=0.005)
    assert noise(found, rate[:1])[0] < 0.03


def test_hyperparameters_read_back_as_written():
    assert Hyperparameters(**fitted().to_dict()) == fitted()
    assert Hyperparameters.of(fitted().values()) == fitted()
    assert len(PRIOR_SPREAD) == len(asdict(START))


# --- the published table --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models() -> dict[str, CurvePoints]:
    return models_of(read_table(SHARED, parse_columns(COLUMNS)))


@needs_table
def test_the_committed_hyperparameters_are_those_of_the_table(models):
    written = json.loads(FITTED.read_text())
    assert written["sha256"] == hashlib.sha256(SHARED.read_bytes()).hexdigest()
    assert set(written["without"]) == set(models)
    points = list(models.values())
    rate, rank = (padded([getattr(model, name) for model in points]) for name in ("rate", "rank"))
    loss = padded([model.loss - model.loss.mean() for model in points])
    weights = padded([CurvePosterior(fitted(), model).run_weights for model in points], empty=0.0)

    def density(h: Hyperparameters) -> float:
        return log_posterior(h, rate, rank, loss, weights)

    top = density(fitted())
    assert top > density(START) + 50
    for name, spread in zip(asdict(START), PRIOR_SPREAD, strict=True):
        for step in (-0.7 * spread, 0.7 * spread):
            assert density(replace(fitted(), **{name: getattr(fitted(), name) + step})) < top, name


@needs_table
def test_hidden_rates_of_hidden_models_are_judged_rightly(models):
    found = hidden_rates(models)
    decided = [each for each in found if each.decided]
    assert len(found) == 162
    assert len(decided) >= 0.65 * len(found)
    assert sum(each.wrong for each in decided) <= 0.05 * len(decided)
    assert np.mean([each.covered for each in found]) >= 0.9
    lines = [each for each in found if each.linear is not None]
    assert np.mean([each.linear_wrong for each in lines]) > 0.2


@needs_table
def test_hidden_ranks_are_foretold_better_than_by_lines(models):
    errors = [e for name, points in models.items() for e in hidden_rank_errors(fitted_without(name), points)]
    model, line = np.mean(errors, axis=0)
    assert model < 0.33
    assert model < 0.8 * line


def test_simulated_runs_scatter_around_their_truth():
    points, truth = simulate("parabola", np.random.default_rng(0))
    seen = observed(points)
    assert set(seen) == set(truth)
    level = np.median([seen[place] - truth[place] for place in truth])
    assert np.median([abs(seen[place] - truth[place] - level) for place in truth]) < 0.3
