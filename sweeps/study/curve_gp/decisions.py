"""What the model decides: the next configuration, whether a trial goes on, and which frozen one is taken up.

Pure functions of the curves, without Optuna or Ray, and deterministic: the same curves, space and seed give
the same answers in any process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
from scipy.special import ndtr
from threadpoolctl import ThreadpoolController

from search_spaces import SearchSpace
from search_spaces.dimension import Value
from sweeps.study.curve_gp.curves import Curve
from sweeps.study.curve_gp.features import Floats, params_of, quasi_random, shares_of
from sweeps.study.curve_gp.model import CurveModel

STARTUP_TRIALS = 8
"""Trials that must have reported before the model proposes any; until then trials are quasi-random."""
GO_ON_CHANCE = 0.03
"""A trial whose chance to end below all others is smaller is frozen."""
THAW_CHANCE = 0.1
"""While new trials are still to be drawn, a frozen one is taken up before them from this chance on. Above
`GO_ON_CHANCE`, so that no trial is frozen and taken up again at once."""
LAST_CHANCE = 0.05
"""Once all have been drawn, frozen trials are taken up from this chance on."""
SOUND_CHANCE = 1e-3
"""Smaller chances are tails, in which a wide prediction beats a good one: no order is read from them."""
_CANDIDATES, _LOCAL, _ROUNDS = 512, 64, 3

_Parameters = ParamSpec("_Parameters")
_Found = TypeVar("_Found")
_BLAS = ThreadpoolController()


def _one_thread(function: Callable[_Parameters, _Found]) -> Callable[_Parameters, _Found]:
    """More threads gain nothing for small matrices, and would delay a pack on the same cores."""
    limited: Callable[_Parameters, _Found] = _BLAS.wrap(limits=1, user_api="blas")(function)
    return limited


@dataclass(frozen=True)
class Chance:
    """How a trial may end."""

    number: int
    percent: int
    wins: float
    """Probability (0..1) that it ends below the trial that is expected to end lowest of the others."""
    final: float = math.inf
    """Where it is expected to end, as the model has losses: lower is better."""


@_one_thread
def propose(
    space: SearchSpace, curves: Sequence[Curve], *, number: int, seed: int, startup: int = STARTUP_TRIALS
) -> dict[str, Value]:
    """The next configuration to try: values of all active dimensions.

    `number`: of this draw, from 0; `seed`: of the search, the same for all draws. Until `startup` trials have
    reported, draw `number` of a quasi-random sequence. Then the configuration of the largest expected
    improvement on the best trial, where trials that have not ended count as ended at their expected values.
    """
    dimensions = len(space.dimensions)
    shift = np.random.default_rng(seed).random(dimensions)
    if sum(bool(curve.reports) for curve in curves) < max(1, startup):
        [shares] = quasi_random(1, dimensions, start=number, shift=shift)
        return params_of(space, shares.tolist())
    model = fitted(space, curves)
    rng = np.random.default_rng((seed, number))
    pending = model.features.points([curve.params for curve in curves if curve.state == "running"])
    means, _ = model.finals()
    alive = [i for i, curve in enumerate(model.curves) if curve.state != "broken"]
    best = min((float(means[i]) for i in alive), default=math.inf)
    expected, _ = model.new(pending, pending[:0])
    best = min([best, *expected.tolist()])

    def improvement(shares: Floats) -> Floats:
        candidates = [params_of(space, row.tolist()) for row in shares]
        mean, deviation = model.new(model.features.points(candidates), pending)
        return log_expected_improvement(best - mean, deviation)

    near = sorted(alive, key=lambda i: (means[i], i))[:5]
    starts = np.array([shares_of(space, model.curves[i].params) for i in near]).reshape(-1, dimensions)
    shares = quasi_random(_CANDIDATES, dimensions, start=0, shift=rng.random(dimensions))
    shares = np.concatenate([shares, _around(starts, 0.1, rng)])
    values = improvement(shares)
    for width in [0.1 * 0.4**k for k in range(_ROUNDS)]:
        top = np.argsort(-values, kind="stable")[:4]
        around = _around(shares[top], width, rng)
        shares, values = (
            np.concatenate([shares[top], around]),
            np.concatenate([values[top], improvement(around)]),
        )
    return params_of(space, shares[int(np.argmax(values))].tolist())


def _around(shares: Floats, width: float, rng: np.random.Generator) -> Floats:
    """Points near each of `shares`, some in one dimension only; choices are redrawn now and then."""
    if not len(shares):
        return shares
    copies = np.repeat(shares, max(1, _LOCAL // len(shares)), axis=0)
    moved = rng.random(copies.shape) < 0.5
    moved[np.arange(len(copies)), rng.integers(copies.shape[1], size=len(copies))] = True
    step = np.where(
        rng.random(copies.shape) < 0.1, rng.random(copies.shape) - copies, rng.normal(0, width, copies.shape)
    )
    # Reflected at the ends, where the best often lies.
    moved_to = np.abs(copies + moved * step)
    return np.asarray(np.where(moved_to > 1, 2 - moved_to, moved_to).clip(0, 1))


@_one_thread
def chances(space: SearchSpace, curves: Sequence[Curve]) -> dict[int, Chance]:
    """How each trial that has reported and may still win compares with the others, by number."""
    model = fitted(space, curves)
    means, covariance = model.finals()
    alive = [i for i, curve in enumerate(model.curves) if curve.state != "broken"]
    found = {}
    for i in alive:
        curve, others = model.curves[i], [j for j in alive if j != i]
        if not others:
            return {curve.number: Chance(curve.number, curve.percent, 1.0, float(means[i]))}
        best = min(others, key=lambda j: (means[j], j))
        spread = math.sqrt(max(covariance[i, i] + covariance[best, best] - 2 * covariance[i, best], 1e-12))
        wins = float(ndtr((means[best] - means[i]) / spread))
        found[curve.number] = Chance(curve.number, curve.percent, wins, float(means[i]))
    return found


def keep_going(space: SearchSpace, curves: Sequence[Curve], number: int) -> bool:
    """Whether a trial that has just reported trains on; False freezes it."""
    chance = chances(space, curves).get(number)
    return chance is None or chance.wins >= GO_ON_CHANCE


def thaw(space: SearchSpace, curves: Sequence[Curve], *, has_new: bool) -> list[int]:
    """Frozen trials that are to be taken up again, most promising first; the others stay frozen.

    `has_new`: whether new trials are still to be drawn. Every trial that is taken up trains to its next
    report at least, so a sweep takes up no trial more often than it has reports.
    """
    frozen = {curve.number for curve in curves if curve.state == "frozen"}
    if not frozen:
        return []
    bound = THAW_CHANCE if has_new else LAST_CHANCE
    found = [
        chance
        for number, chance in chances(space, curves).items()
        if number in frozen and chance.wins >= bound
    ]
    return [chance.number for chance in sorted(found, key=lambda c: (-c.wins, c.number))]


def least_promising(space: SearchSpace, curves: Sequence[Curve]) -> list[int]:
    """Frozen trials, the least promising first: by their chance to win, or by where they are expected to end
    among those whose chance is below `SOUND_CHANCE`.
    """
    found = chances(space, curves)

    def promise(number: int) -> tuple[float, float, int]:
        chance = found.get(number)
        if chance is None:
            return 0.0, -math.inf, -number
        return chance.wins if chance.wins >= SOUND_CHANCE else 0.0, -chance.final, -number

    return sorted((curve.number for curve in curves if curve.state == "frozen"), key=promise)


def log_expected_improvement(lead: Floats, deviation: Floats) -> Floats:
    """log E[max(0, lead + deviation * N(0, 1))], also where it underflows."""
    u = lead / deviation
    density = -0.5 * u**2 - 0.5 * math.log(2 * math.pi)
    # phi(u) + u Phi(u), by its tail phi(u) / u^2 far out
    near = np.exp(density) + u * ndtr(u)
    tail = density - 2 * np.log(np.maximum(np.abs(u), 1.0))
    return np.asarray(np.log(deviation) + np.where(u > -6, np.log(np.maximum(near, 1e-300)), tail))


def fitted(space: SearchSpace, curves: Sequence[Curve]) -> CurveModel:
    """The model of those curves that hold anything, from memory if it was asked for just before.

    Draws and decisions between two reports then cost no fit.
    """
    told = [curve for curve in curves if curve.reports or curve.state == "broken"]
    key = (
        space.fingerprint(),
        *((tuple(c.params.items()), tuple(c.reports.items()), c.state == "broken") for c in told),
    )
    if key not in _FITTED:
        while len(_FITTED) >= 4:
            del _FITTED[next(iter(_FITTED))]
        _FITTED[key] = CurveModel(space, told)
    return _FITTED[key]


_FITTED: dict[Hashable, CurveModel] = {}
