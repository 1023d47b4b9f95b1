"""What simulated sweeps are drawn from has the truth that is asked of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.simulator import shapes
from benchmarks.simulator.noise import Noise
from benchmarks.simulator.space_grid import lowest_cost
from benchmarks.simulator.surface import Assigned, Surface
from benchmarks.simulator.sweeps import draw_params
from benchmarks.simulator.worlds import WORLDS, space

BEST = {"learning_rate": 4e-4, "lr_scheduler_type": "linear", "warmup_ratio": 0.05}
SURFACE = Surface(shape=shapes.bowl(curvature=6.0), log_rate=math.log10(4e-4))


def best_rate(surface: Surface, **params: object) -> float:
    rates = np.geomspace(1e-5, 1e-2, 601)
    return float(
        rates[np.argmin([surface.cost({**BEST, **params, "learning_rate": rate}) for rate in rates])]
    )


def test_the_best_rate_moves_with_scheduler_warmup_and_rank() -> None:
    surface = replace(SURFACE, scheduler_shift=(0.0, -0.3, 0.1), warmup_shift=0.2, rank_shift=-0.1)
    assert best_rate(surface) == pytest.approx(4e-4, rel=0.02)
    assert best_rate(surface, lr_scheduler_type="constant") == pytest.approx(4e-4 / 10**0.3, rel=0.02)
    assert best_rate(surface, warmup_ratio=0.15) == pytest.approx(4e-4 * 10**0.2, rel=0.02)
    assert best_rate(surface, lora_r=64) == pytest.approx(4e-4 / 10**0.2, rel=0.02)


def test_costs_are_percent_of_the_base_loss() -> None:
    """Half a decade away from the best of a bowl of 6% per square decade."""
    params = BEST | {"learning_rate": 4e-4 * 10**0.5}
    assert SURFACE.cost(params) == pytest.approx(1.5)
    assert SURFACE.loss(params) == pytest.approx(2.0 * 1.015)
    embedded = replace(SURFACE, embedding_cost=1.0, log_embedding_rate=-4.0)
    assert embedded.cost(BEST | {"embedding_lr_ratio": 1e-5 / 4e-4}) == pytest.approx(1.0)
    assert embedded.cost(BEST | {"embedding_lr_ratio": 1e-3 / 4e-4}) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "make", [shapes.cliff, shapes.plateau, shapes.two_basins, shapes.narrow, shapes.flat]
)
def test_every_shape_is_lowest_at_its_best_rate(make) -> None:  # type: ignore[no-untyped-def]
    away = np.linspace(-1.5, 1.5, 3001)
    costs = make().cost(away)
    assert make().cost(np.zeros(1))[0] == pytest.approx(costs.min(), abs=1e-9)
    assert (costs[away > 1.2] > costs[1500]).all()


@pytest.mark.parametrize("num_dimensions", [3, 5])
def test_no_configuration_lies_below_the_lowest_of_a_space(num_dimensions: int) -> None:
    generator = np.random.default_rng(0)
    made = space(num_dimensions, 8.03e9)
    for _ in range(3):
        surface = WORLDS["cliff, noise 0.2%"].draw(generator)
        assert isinstance(surface, Surface)
        lowest = lowest_cost(surface, made)
        drawn = min(surface.cost(draw_params(made, generator)) for _ in range(1500))
        assert lowest - 0.02 <= drawn <= lowest + 1.0


def test_a_seed_does_the_same_to_all_configurations() -> None:
    """Differences on one seed have twice the variance of a run, however much seeds differ."""
    noise = Noise(percent=0.2, seed_percent=5.0, growth=0.0)
    generator = np.random.default_rng(0)
    found = []
    for _ in range(4000):
        effect = noise.seed_effect(generator)
        one, other = (noise.run(SURFACE, BEST, effect, generator) for _ in range(2))
        assert one is not None
        assert other is not None
        found.append(100 * (one - other) / 2.0)
    assert np.std(found) == pytest.approx(0.2 * math.sqrt(2), rel=0.05)


@pytest.mark.parametrize("skew", [0.0, 0.9])
@pytest.mark.parametrize("tails", ["normal", "t4"])
def test_noise_grows_towards_the_cliff_and_keeps_the_mean(skew: float, tails) -> None:  # type: ignore[no-untyped-def]
    noise = Noise(percent=0.2, growth=3.0, skew=skew, tails=tails, diverges=False)
    surface = replace(SURFACE, shape=shapes.plateau(half_width=0.3))
    generator = np.random.default_rng(1)
    spreads = []
    for above in (-2.0, 0.0):
        params = BEST | {"learning_rate": 4e-4 * 10 ** (0.3 + above)}
        losses = [noise.run(surface, params, 0.0, generator) for _ in range(3000)]
        percents = 100 * np.array(losses, dtype=float) / surface.loss(params) - 100
        assert abs(np.mean(percents)) < 0.04
        spreads.append(float(np.std(percents)))
    assert spreads[0] == pytest.approx(0.2, rel=0.15)
    assert spreads[1] > 2.2 * spreads[0]


def test_runs_diverge_above_the_cliff_and_nowhere_else() -> None:
    noise = Noise()
    assert noise.share_diverging(-math.inf) < 1e-20
    assert noise.share_diverging(-0.1) < 0.001
    assert noise.share_diverging(0.25) == pytest.approx(0.5)
    assert noise.share_diverging(1.0) > 0.999
    assert replace(noise, diverges=False).share_diverging(1.0) == 0.0


def test_assigned_costs_are_taken_in_turn_and_kept() -> None:
    surface = Assigned(costs=(1.0, -0.5), nearness=(0.3, math.inf))
    one, two, three = ({"learning_rate": rate} for rate in (1e-4, 2e-4, 3e-4))
    assert [surface.cost(params) for params in (one, two, three, two)] == [0.0, 1.0, -0.5, 1.0]
    assert surface.decades_above_cliff(two) == -0.3
    assert surface.decades_above_cliff(three) == -math.inf
