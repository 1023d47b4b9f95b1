"""Confirmations drawn at once, with known differences, judged by the program's own comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from results.comparison.arms import Arm, Replicate
from results.comparison.constants import MARGIN
from results.comparison.paired import compare_all
from results.comparison.relation import Relation, relation

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""So many values of mean 0 and standard deviation 1."""


def normal(generator: np.random.Generator, size: int) -> NDArray[np.float64]:
    return generator.standard_normal(size)


def heavy(generator: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Student's t with 4 degrees of freedom."""
    return generator.standard_t(4, size) / np.sqrt(2)


def skewed(generator: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Exponential: most runs a little below the mean, a few far above."""
    return generator.exponential(size=size) - 1


def lognormal(generator: np.random.Generator, size: int) -> NDArray[np.float64]:
    """The exponential of a normal value, more skewed still."""
    values = np.exp(generator.standard_normal(size)) - np.exp(0.5)
    return values / np.sqrt((np.e - 1) * np.e)


def rare_jump(generator: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A loss far above the others that comes in one run of ten."""
    values = (generator.random(size) < 0.1) - 0.1 + generator.standard_normal(size) / 15
    return values / np.sqrt(0.09 + 1 / 225)


def relations(
    generator: np.random.Generator,
    effects: Sequence[float],
    noises: Sequence[float],
    *,
    seeds: int = 8,
    draws: Sequence[Draw] | None = None,
    above: Sequence[int] = (),
    best_noise: float | None = None,
    best_draw: Draw = normal,
) -> list[Relation]:
    """What one confirmation shows of arms whose true loss is 2 * (1 + effect).

    `noises` are standard deviations of a run as shares of the loss; the best's is the first unless given.
    `above` are the arms that may lie near the cliff; the others differ by a lower learning rate alone.
    """
    count = len(effects)
    draws = draws or [normal] * count
    arms = [Arm(name="best", role="best", values={"learning_rate": 1e-4})]
    for index in range(count):
        rate = 2e-4 if index in above else 5e-5
        arms.append(Arm(name=f"a{index}", role="row", values={"learning_rate": rate}))
    shared = 0.01 * generator.standard_normal(seeds)
    best_noise = noises[0] if best_noise is None else best_noise
    losses = [2 * (1 + shared + best_noise * best_draw(generator, seeds))]
    losses += [
        2 * (1 + effect + shared + noise * draw(generator, seeds))
        for effect, noise, draw in zip(effects, noises, draws, strict=True)
    ]
    runs = [
        Replicate(arm=arm.name, seed=seed, eval_loss=float(found[seed]))
        for seed in range(seeds)
        for arm, found in zip(arms, losses, strict=True)
    ]
    found = compare_all(arms, runs, most_seeds=seeds)
    return [relation(found[f"a{index}"]) for index in range(count)]


def is_wrong(shown: Relation, effect: float, margin: float = MARGIN) -> bool:
    """Whether a relation says what is not so."""
    match shown:
        case "worse":
            return effect <= margin
        case "no_worse":
            return effect >= margin
        case "within":
            return abs(effect) >= margin
        case "better":
            return effect >= -margin
    return False
