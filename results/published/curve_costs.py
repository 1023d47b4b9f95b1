"""What a learning rate costs on a model of a published table, tried or not: a curve through its runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from results.comparison.paired import Comparison
from results.curve_model.hyperparameters import Hyperparameters, fitted
from results.curve_model.points import NEAR_DIVERGENCE, USUAL_RANK, CurvePoints, places, points_of
from results.published.configs import Config, config_name
from results.verdict.row_values import TOLERANCE

if TYPE_CHECKING:
    from results.curve_model.best_rate import BestRate
    from results.curve_model.posterior import CurvePosterior

SURE = 0.95
"""Probability that a word must have: an interval leaves 5% beyond each end."""
LEAST_RATES = 3
"""With fewer rates the curve would be that of other models."""


class CurveCosts:
    """Costs against the best config of a model, by its curve over learning rate and rank."""

    def __init__(
        self, best: Config, posterior: CurvePosterior, points: CurvePoints, *, rates: Sequence[float]
    ) -> None:
        self._best, self._posterior = best, posterior
        self.rates = rates
        """Those that were tried, without rates near divergence; rising."""
        self.num_runs, self.near_divergence = len(points), points.near_divergence

    def at(self, rate: float) -> Comparison:
        """The cost of `rate` with everything else as in the best config.

        The interval is that of the curve, so it leaves out the noise of a single run, and the luck by which
        the best config was the lowest.
        """
        best = self._best
        values = {**best.values, "learning_rate": rate}
        difference = self._posterior.differences(*places([values, best.values]))[0]
        effect, low, high = (
            round(best.mean * math.expm1(difference.quantile(share) / 100), 6)
            for share in (0.5, 1 - SURE, SURE)
        )
        return Comparison(
            arm=config_name(values),
            other=best.name,
            pairs=0,
            effect=effect,
            low=low,
            high=high,
            level=round(2 * SURE - 1, 6),
            other_loss=best.mean,
            design="curve",
        )

    def is_beyond(self, rate: float) -> bool:
        """Whether `rate` is above every rate that was tried, where runs may diverge and be left out."""
        return rate > self.rates[-1] * (1 + TOLERANCE)

    def best_rate(self) -> BestRate:
        """Where the curve is lowest at the best config's rank, within what was tried."""
        from results.curve_model.best_rate import best_rate  # here: imports numpy

        rank = float(self._best.values.get("lora_r") or USUAL_RANK)
        return best_rate(self._posterior, self.rates[0], self.rates[-1], rank=rank)


def curve_costs(
    configs: Sequence[Config], best: Config, hyperparameters: Hyperparameters | None = None
) -> CurveCosts | None:
    """The curve through the configs that differ from the best in learning rate and rank alone.

    None with fewer than LEAST_RATES rates, or losses that are not above 0.
    """
    alike = [c for c in configs if _others(c) == _others(best)]
    losses = [loss for c in alike for loss in c.losses]
    if min(losses) <= 0:
        return None
    highest = min(losses) * math.exp(NEAR_DIVERGENCE)
    rates = sorted({c.rate for c in alike if c.rate <= best.rate or min(c.losses) <= highest})
    if len(rates) < LEAST_RATES:
        return None
    from results.curve_model.posterior import CurvePosterior  # here: imports scipy

    points = points_of((c.values, loss) for c in alike for loss in c.losses)
    posterior = CurvePosterior(hyperparameters or fitted(), points)
    return CurveCosts(best, posterior, points, rates=rates)


def _others(config: Config) -> tuple[tuple[str, object], ...]:
    return tuple((name, value) for name, value in config.other_settings if name != "lora_r")
