"""Comparisons in a table without seeds: the noise of a run comes from configs that were run several times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from results.comparison.constants import ALPHA
from results.comparison.paired import Comparison
from results.comparison.quantiles import t_quantile
from results.published.configs import Config

NOISE_GUARD = 3.0
"""Factor on the noise when a compared rate is above every rate that was run twice: noise grows with the rate.
In the one model of the committed table with replicates at both, it is 3 times larger at 1e-3 than at 4e-5.
"""


@dataclass(frozen=True, kw_only=True)
class PooledNoise:
    """The noise of a run, pooled over configs that were run more than once."""

    spread: float | None
    """Standard deviation in nats, rounding of the table included; None when nothing was run twice."""
    degrees: int
    groups: int
    highest_rate: float
    """The highest rate of the configs that were run twice; 0 when none was."""


def pooled_noise(
    configs: Sequence[Config], *, up_to_rate: float = math.inf, loss_step: float = 0.0
) -> PooledNoise:
    """The noise from configs run more than once whose rate is at most `up_to_rate`.

    Those at higher rates say nothing about lower ones: runs near divergence scatter far more. `loss_step` is
    the step the losses are rounded to; its variance (step ** 2 / 12) is the least that a run can have.
    """
    groups = [c for c in configs if len(c.losses) > 1 and c.rate <= up_to_rate * (1 + 1e-9)]
    degrees = sum(len(config.losses) - 1 for config in groups)
    if not degrees:
        return PooledNoise(spread=None, degrees=0, groups=0, highest_rate=0.0)
    squares = math.fsum((loss - config.mean) ** 2 for config in groups for loss in config.losses)
    return PooledNoise(
        spread=math.sqrt(squares / degrees + loss_step**2 / 12),
        degrees=degrees,
        groups=len(groups),
        highest_rate=max(config.rate for config in groups),
    )


def compare_pooled(
    config: Config,
    best: Config,
    configs: Sequence[Config],
    *,
    comparisons: int,
    alpha: float = ALPHA,
    loss_step: float = 0.0,
) -> Comparison:
    """`config` against `best` by a t interval with the pooled noise; no interval when nothing was run twice.

    `comparisons` counts every pair that could have been compared, as the best was chosen from the same runs.
    The interval assumes that noise is about normal and equal in all configs up to the higher of the two
    rates; NOISE_GUARD is used where no replicates reach that rate.
    """
    higher = max(config.rate, best.rate)
    noise = pooled_noise(configs, up_to_rate=higher, loss_step=loss_step)
    effect = config.mean - best.mean
    share = alpha / comparisons
    low = high = None
    if noise.spread is not None:
        guard = NOISE_GUARD if noise.highest_rate < higher * (1 - 1e-9) else 1.0
        error = guard * noise.spread * math.sqrt(1 / len(config.losses) + 1 / len(best.losses))
        half = t_quantile(share, noise.degrees) * error
        low, high = effect - half, effect + half
    return Comparison(
        arm=config.name,
        other=best.name,
        pairs=min(len(config.losses), len(best.losses)),
        effect=effect,
        low=low,
        high=high,
        level=1 - share,
        other_loss=best.mean,
        design="pooled",
    )
