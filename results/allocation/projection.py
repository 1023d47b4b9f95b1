"""What an arm's interval will be after so many pairs, if the next ones are as is now expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from results.allocation.expected import Expected
from results.comparison.arms import may_be_near_cliff
from results.comparison.constants import ASSUMED_NOISE, MIN_PAIRS
from results.comparison.noise import cautious_half, degrees_added, half_width
from results.comparison.paired import Comparison
from results.comparison.quantiles import t_quantile
from results.comparison.thresholds import look_level
from results.verdict.arm_comparisons import ArmComparisons

_LEAST_SPREAD, _MOST_SPREAD = 0.001, 0.02
_PESSIMISM = 0.5
"""Standard deviations that are added to an expected cost: the search turned away from untried values."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Intervals to come; losses in nats."""

    compared: ArmComparisons
    expected: Mapping[str, Expected]
    loss: float
    """That of the best."""
    comparisons: int
    """Arms that share the error rate."""

    def at(self, arm: str, pairs: int) -> Comparison:
        """The arm's comparison after so many pairs; as it is now where it has as many."""
        now = self.compared.comparisons[arm]
        if pairs <= now.pairs or pairs < MIN_PAIRS:
            return now
        if now.lost and not now.pairs:
            return replace(now, loses_runs=pairs > MIN_PAIRS)
        noise = math.sqrt(2) * (self.compared.run_noise or ASSUMED_NOISE * abs(self.loss))
        mean = self._mean(arm, now, noise)
        compared = self.compared
        level = look_level(pairs, self.comparisons, compared.most_seeds, compared.alpha)
        quantile = t_quantile(2 * level, pairs - 1 + degrees_added(self.comparisons))
        half = half_width(noise**2, pairs, quantile)
        low, high = mean - half, mean + half
        if self._is_near_cliff(arm):
            high = mean + cautious_half(noise**2, noise**2, pairs, self.comparisons, quantile)
        if now.low is not None and now.high is not None:
            within = max(low, now.low), min(high, now.high)
            low, high = within if within[0] <= within[1] else (now.low, now.high)
        loss = now.margin_loss or now.other_loss or self.loss
        return replace(now, pairs=pairs, effect=mean, low=low, high=high, other_loss=loss, margin_loss=loss)

    def _mean(self, arm: str, now: Comparison, noise: float) -> float:
        """The expected difference: what the sweep says and the pairs so far, each by its precision."""
        expected = self.expected[arm]
        spread = min(max(expected.spread, _LEAST_SPREAD), _MOST_SPREAD) * abs(self.loss)
        before = expected.cost * abs(self.loss) + _PESSIMISM * spread
        if now.effect is None:
            return before
        ours, theirs = now.pairs / noise**2, 1 / spread**2
        return (ours * now.effect + theirs * before) / (ours + theirs)

    def _is_near_cliff(self, arm: str) -> bool:
        found = next(summary.arm for summary in self.compared.arms if summary.arm.name == arm)
        return may_be_near_cliff(found, self.compared.reference)
