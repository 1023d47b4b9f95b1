"""Paired comparisons of replicated configs.

Numbers alone: no study, no storage. An arm is one config, a replicate is one run of it on a seed. On one seed
all arms see the same data in the same order, so their difference is free of what the seed does to both.

Error control. The family is all arms against the reference, the best config of the sweep, chosen before any
replicate ran. An arm's interval is the intersection of those at 3, 4, ... pairs (`looks.py`), each end of all
of them together wrong with probability alpha * INTERVAL_SHARE / comparisons (`thresholds.py`). A word is a
function of these intervals and is wrong only if the end that it rests on is. Words of equality are about runs
that finish: three finished runs do not exclude that a fourth ends early.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from results.comparison.arms import Arm, Replicate, may_be_near_cliff, reference
from results.comparison.constants import ALPHA, MOST_SEEDS
from results.comparison.looks import AllEvidence, Design, all_evidence
from results.comparison.thresholds import end_share

_ROUNDING = 1e-9
"""Nats by which a mean may lie outside an interval without width."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One arm against another over the seeds that both ran on."""

    arm: str
    other: str
    pairs: int
    """Seeds on which both finished."""
    effect: float | None
    """Mean paired difference of losses, nats per token; positive when `arm` is worse. None without a pair."""
    low: float | None
    high: float | None
    """Ends of the interval; None below MIN_PAIRS pairs."""
    level: float
    """Confidence of this one interval, both ends, over all looks together, after the correction for the
    family."""
    other_loss: float | None
    """Mean loss of `other` over the pairs."""
    margin_loss: float | None = None
    """The loss that the margin is a share of: that of `other` over the first MIN_PAIRS pairs, since further
    seeds may not move what has been shown. None for `other_loss`."""
    lost: int = 0
    """Seeds on which `arm` ended early and `other` finished."""
    other_lost: int = 0
    """Seeds on which `other` ended early."""
    design: Literal["paired", "curve"] = "paired"
    """curve: no seeds; the interval is that of a curve through runs at several rates
    (`results/published/curve_costs.py`)."""
    loses_runs: bool = False
    """Whether `arm` was shown to lose more than TOLERATED_LOSS_RATE of its runs while `other` lost none."""
    before_loss: tuple[float, float] | None = None
    """The ends at the last look before either lost a run; None without such a look."""
    contradicted: bool = False
    """Whether later seeds contradict the interval, which stands nevertheless: a later look excludes it all,
    or the mean over all seeds lies outside it."""

    def percent(self, value: float | None) -> float | None:
        """A difference as percent of the other's loss."""
        return None if value is None or not self.other_loss else 100 * value / self.other_loss


def compare(
    arm: str,
    other: str,
    replicates: Sequence[Replicate],
    *,
    comparisons: int = 1,
    most_seeds: int = MOST_SEEDS,
    alpha: float = ALPHA,
) -> Comparison:
    """`arm` against `other`, paired by seed, from runs in the order in which they ended.

    `comparisons` is the number of arms in the family, `most_seeds` that of seeds it was designed for.
    Without MIN_PAIRS pairs there is an effect but no interval. Runs that ended early make no pair; they are
    counted, and an arm that has lost one is not called equal from then on (`relation`).
    """
    design = Design(comparisons=comparisons, most_seeds=most_seeds, alpha=alpha)
    return _comparison(arm, other, all_evidence({arm: False}, other, replicates, design), design)


def compare_all(
    arms: Sequence[Arm],
    replicates: Sequence[Replicate],
    *,
    most_seeds: int = MOST_SEEDS,
    alpha: float = ALPHA,
) -> dict[str, Comparison]:
    """Every arm but the reference against it, as one family; keys are the arms' names.

    `replicates` are in the order in which they ended: each of them is a look at what had ended by then.
    """
    best = reference(arms)
    others = {arm.name: may_be_near_cliff(arm, best) for arm in arms if arm.name != best.name}
    design = Design(comparisons=max(1, len(others)), most_seeds=most_seeds, alpha=alpha)
    found = all_evidence(others, best.name, replicates, design)
    return {name: _comparison(name, best.name, found, design) for name in others}


def _comparison(arm: str, other: str, found: AllEvidence, design: Design) -> Comparison:
    evidence = found.arms[arm]
    # Without a pair, the mean of those that finished at all.
    mean = fmean(found.other_losses) if found.other_losses else None
    other_loss = evidence.other_sum / evidence.pairs if evidence.pairs else mean
    has_interval = math.isfinite(evidence.low) and math.isfinite(evidence.high)
    outside = max(evidence.low - evidence.mean, evidence.mean - evidence.high)
    is_sound = math.isfinite(evidence.before_loss[0])
    return Comparison(
        arm=arm,
        other=other,
        pairs=evidence.pairs,
        effect=evidence.mean if evidence.pairs else None,
        low=evidence.low if has_interval else None,
        high=evidence.high if has_interval else None,
        level=1 - 2 * end_share(design.comparisons, design.alpha),
        other_loss=other_loss,
        margin_loss=evidence.margin_loss,
        lost=evidence.lost,
        other_lost=found.other_lost,
        loses_runs=evidence.loses_runs,
        before_loss=evidence.before_loss if is_sound else None,
        contradicted=evidence.contradicted or (has_interval and outside > _ROUNDING),
    )
