"""What a learning rate costs on a model of a published table, tried or not: a curve through its runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from results.comparison.paired import Comparison
from results.curve_model.hyperparameters import Hyperparameters, fitted
from results.curve_model.points import (
    LEAST_RATES,
    NEAR_DIVERGENCE,
    USUAL_RANK,
    CurvePoints,
    num_rates,
    places,
    points_of,
)
from results.published.configs import Config, config_name
from results.verdict.row_values import TOLERANCE

if TYPE_CHECKING:
    from results.curve_model.best_rate import BestRate
    from results.curve_model.posterior import CurvePosterior

ROUNDED = 0.02
"""Percent by which rounded losses may lie beside the interval."""
SURE = 0.95
"""Probability that a word must have: an interval leaves 5% beyond each end."""


class CurveCosts:
    """Costs against the best config of a model, by its curve over learning rate and rank."""

    def __init__(
        self,
        best: Config,
        posterior: CurvePosterior,
        points: CurvePoints,
        *,
        rates: Sequence[float],
        beside: Sequence[Config] = (),
    ) -> None:
        self._best, self._posterior = best, posterior
        self.rates = rates
        """Those that were tried, without rates near divergence; rising."""
        self.num_runs, self.near_divergence = len(points), points.near_divergence
        self._measured = {c.rate: 100 * math.log(c.mean / best.mean) for c in beside}
        self._off = self._runs_off()

    def at(self, rate: float) -> Comparison:
        """The cost of `rate` with everything else as in the best config.

        The interval is that of the curve, so it leaves out the noise of a single run, and the luck by which
        the best config was the lowest. Where the curve passes by the rate's own runs, the cost is theirs, and
        the interval holds both; beside such a rate it is wider by as much.
        """
        best = self._best
        values = {**best.values, "learning_rate": rate}
        middle, low, high = self._on_curve(rate)
        own = next((r for r in self._measured if math.isclose(r, rate, rel_tol=TOLERANCE)), None)
        near = [own] if own is not None else self._neighbours(rate)
        off = [self._off[r] for r in near if r in self._off]
        if own in self._off:
            middle = self._measured[own]
        low, high = low + min([0.0, *off]), high + max([0.0, *off])
        effect, low, high = (round(best.mean * math.expm1(value / 100), 6) for value in (middle, low, high))
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

    @property
    def rates_off(self) -> list[float]:
        """Rates whose runs lie outside the curve's interval."""
        return sorted(self._off)

    def _on_curve(self, rate: float) -> tuple[float, float, float]:
        """Median and ends of the interval, in percent of the log loss."""
        values = {**self._best.values, "learning_rate": rate}
        difference = self._posterior.differences(*places([values, self._best.values]))[0]
        middle, low, high = (difference.quantile(share) for share in (0.5, 1 - SURE, SURE))
        return middle, low, high

    def _runs_off(self) -> dict[float, float]:
        """Rate -> how far its runs lie above the curve, where its interval does not hold them."""
        found = {}
        for rate, measured in self._measured.items():
            middle, low, high = self._on_curve(rate)
            if not low - ROUNDED <= measured <= high + ROUNDED:
                found[rate] = measured - middle
        return found

    def _neighbours(self, rate: float) -> list[float]:
        """The nearest rates that were tried at the best's other settings, on both sides."""
        tried = sorted([*self._measured, self._best.rate])
        return [r for r in tried if r < rate][-1:] + [r for r in tried if r > rate][:1]

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

    None with fewer than LEAST_RATES rates, or losses that are not above 0 (`reason_for_none`).
    """
    alike = [c for c in configs if _others(c) == _others(best)]
    losses = [loss for c in alike for loss in c.losses]
    if min(losses) <= 0:
        return None
    highest = min(losses) * math.exp(NEAR_DIVERGENCE)
    rates = sorted({c.rate for c in alike if c.rate <= best.rate or min(c.losses) <= highest})
    if num_rates(rates) < LEAST_RATES:
        return None
    from results.curve_model.posterior import CurvePosterior  # here: imports scipy

    points = points_of((c.values, loss) for c in alike for loss in c.losses)
    posterior = CurvePosterior(hyperparameters or fitted(), points)
    beside = [
        c for c in alike if c is not best and c.other_settings == best.other_settings and c.rate in rates
    ]
    return CurveCosts(best, posterior, points, rates=rates, beside=beside)


def reason_for_none(configs: Sequence[Config], best: Config) -> str:
    """Why there is no curve: the code of a limitation."""
    losses = [loss for c in configs if _others(c) == _others(best) for loss in c.losses]
    return "no_curve_of_losses" if min(losses) <= 0 else "few_rates"


def _others(config: Config) -> tuple[tuple[str, object], ...]:
    return tuple((name, value) for name, value in config.other_settings if name != "lora_r")
