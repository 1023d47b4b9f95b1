"""Worlds by name: what a simulated sweep's surface, noise and space are drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType

import numpy as np

from benchmarks.simulator import shapes
from benchmarks.simulator.noise import Noise
from benchmarks.simulator.surface import Assigned, Surface
from search_spaces import SearchSpace, space_for

MARGIN_PERCENT = 0.5
"""The program's default margin."""
MODEL_SIZES = (1.24e9, 8.03e9)
MAX_STEPS = 300


@dataclass(frozen=True, kw_only=True)
class World:
    """One kind of sweep; `draw` makes another surface for each sweep."""

    name: str
    draw: Callable[[np.random.Generator], Surface | Assigned]
    noise: Noise
    num_dimensions: int = 3
    """3: learning rate, scheduler, warmup; 5: also embedding ratio and rank."""
    is_assigned: bool = False
    """Whether the arms' costs are given, so that the sweep has no other trials."""
    power_of: float | None = None
    """Percent: power is the share of arms of this cost that are shown to be worse."""


def surface(generator: np.random.Generator, shape: shapes.Shape, *, scale: float = 1.0) -> Surface:
    """A surface with this curve over the rate; `scale` multiplies the other hyperparameters' costs."""

    def drawn(low: float, high: float) -> float:
        return float(generator.uniform(low, high))

    costs = scale * np.array([0.0, drawn(0, 1.2), drawn(-0.5, 0.5)])
    return Surface(
        shape=shape,
        log_rate=float(np.clip(generator.normal(math.log10(4e-4), 0.3), -4.2, -3.0)),
        scheduler_shift=(0.0, -drawn(0.1, 0.3), drawn(-0.05, 0.15)),
        scheduler_cost=tuple(costs),
        warmup_shift=drawn(0.0, 0.2),
        warmup_cost=scale * drawn(0.0, 0.5),
        best_warmup=drawn(0.0, 0.15),
        rank_shift=-drawn(0.0, 0.12),
        rank_cost=scale * drawn(0.0, 0.15),
        best_rank=float(generator.choice([16, 32, 64])),
        embedding_cost=scale * drawn(0.2, 1.5),
        log_embedding_rate=drawn(-4.8, -3.8),
        base_loss=drawn(0.6, 3.5),
    )


def _cliff(generator: np.random.Generator) -> Surface:
    shape = shapes.cliff(
        left=float(generator.uniform(2, 8)),
        right=float(generator.uniform(3, 12)),
        at=float(generator.uniform(0.3, 0.8)),
    )
    return surface(generator, shape)


def _near_cliff(generator: np.random.Generator) -> Surface:
    """Good values lie on a plateau that ends in the cliff, so the best and the arms beside it are noisy."""
    return surface(generator, shapes.plateau(half_width=float(generator.uniform(0.1, 0.25)), left=4.0))


def _other(generator: np.random.Generator) -> Surface:
    makers = (shapes.bowl, shapes.plateau, shapes.two_basins, shapes.narrow, shapes.flat)
    return surface(generator, makers[int(generator.integers(len(makers)))]())


HAIR = 0.01
"""Percent by which costs miss the margin, on the side on which the nearest word is wrong."""
AT_THE_MARGIN = tuple(
    side * MARGIN_PERCENT + hair for side, hair in ((1, -HAIR), (1, HAIR), (-1, HAIR), (-1, -HAIR))
)


def _assigned(
    costs: tuple[float, ...], nearness: tuple[float, ...] = (math.inf,)
) -> Callable[[np.random.Generator], Assigned]:
    def draw(generator: np.random.Generator) -> Assigned:
        order = generator.permutation(len(costs))
        return Assigned(costs=tuple(costs[i] for i in order), nearness=nearness)

    return draw


QUIET = Noise(percent=0.2, growth=0.0, diverges=False)
NOISY = Noise(percent=0.2, growth=4.0, diverges=False)
_WORLDS = (
    World(name="cliff, noise 0.1%", draw=_cliff, noise=Noise(percent=0.1)),
    World(name="cliff, noise 0.2%", draw=_cliff, noise=Noise(percent=0.2)),
    World(name="cliff, noise 0.5%", draw=_cliff, noise=Noise(percent=0.5)),
    World(name="cliff, 5 dimensions", draw=_cliff, noise=Noise(percent=0.2), num_dimensions=5),
    World(name="cliff, t4", draw=_cliff, noise=Noise(percent=0.2, tails="t4")),
    World(name="near the cliff", draw=_near_cliff, noise=Noise(percent=0.2, growth=4.0, skew=0.7)),
    World(name="other shapes", draw=_other, noise=Noise(percent=0.2)),
    World(name="at the margin", draw=_assigned(AT_THE_MARGIN), noise=QUIET, is_assigned=True),
    World(
        name="at the margin, t4",
        draw=_assigned(AT_THE_MARGIN),
        noise=replace(QUIET, tails="t4"),
        is_assigned=True,
    ),
    World(
        name="at the margin, unequal noise",
        draw=_assigned(AT_THE_MARGIN, (math.inf, 0.0, 0.1, math.inf, 0.3)),
        noise=NOISY,
        is_assigned=True,
    ),
    World(
        name="at the margin, skewed noise",
        draw=_assigned(AT_THE_MARGIN, (math.inf, 0.0, 0.1, math.inf, 0.3)),
        noise=replace(NOISY, skew=0.9),
        is_assigned=True,
    ),
    World(name="all worse by 1%", draw=_assigned((1.0,)), noise=QUIET, is_assigned=True, power_of=1.0),
    World(
        name="half worse by 1%, half equal",
        draw=_assigned((1.0, 0.0, 1.0, 0.05)),
        noise=QUIET,
        is_assigned=True,
        power_of=1.0,
    ),
)
WORLDS: Mapping[str, World] = MappingProxyType({world.name: world for world in _WORLDS})


@cache
def space(num_dimensions: int, model_size: float) -> SearchSpace:
    """The program's own space for such a sweep."""
    if num_dimensions not in (3, 5):
        raise ValueError(f"a simulated sweep has 3 or 5 dimensions; got {num_dimensions}")
    more = num_dimensions == 5
    return space_for(
        model_size=model_size,
        max_steps=MAX_STEPS,
        train_embeddings=more,
        include=("lora_r",) if more else (),
    )
