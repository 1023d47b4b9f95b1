"""Paired comparisons of replicated configs.

Numbers alone: no study, no storage. An arm is one config, a replicate is one run of it on a seed. On one seed
all arms see the same data in the same order, so their difference is free of what the seed does to both.

Error control. The family is all arms against the reference, the best config of the sweep, chosen before any
replicate ran. After k = pairs - MIN_PAIRS + 1 looks (the first is at three pairs) a comparison has k
two-sided t intervals of its paired differences, of the first 3, 4, ... seeds, the j-th of them at

    1 - alpha * INTERVAL_SHARE / comparisons / (j * (j + 1)),

and its interval is their intersection. `comparisons` divides by Bonferroni and not by Holm: words need
intervals (a difference within the margin is shown by both ends), and Holm's steps have no simultaneous
intervals. `j (j + 1)` spends the rest over the looks: its reciprocals sum to 1, so the intervals of all arms
at all numbers of pairs hold together with probability 1 - alpha * INTERVAL_SHARE, however often one looks and
whatever the budget. So does their intersection: a further look cannot take a word back. A word is a function
of these intervals, so the family-wise error rate of a confirmation is at most alpha, if differences are about
normal; three pairs cannot check that. Words of equality are about runs that finish: three finished runs do
not exclude that a fourth ends early.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from results.comparison.arms import Arm, Replicate, reference, runs_by_arm
from results.comparison.constants import ALPHA, INTERVAL_SHARE, MIN_PAIRS, TOLERATED_LOSS_RATE
from results.comparison.quantiles import at_least, t_quantile


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
    """Confidence of this one interval over all looks together, after the correction for the family."""
    other_loss: float | None
    """Mean loss of `other` over the pairs."""
    lost: int = 0
    """Seeds on which `arm` ended early and `other` finished."""
    other_lost: int = 0
    """Seeds on which `other` ended early."""
    design: Literal["paired", "pooled"] = "paired"
    """pooled: not paired by seed; the noise is that of other configs run more than once
    (`results/published/pooled_noise.py`)."""
    loses_runs: bool = False
    """Whether `arm` is shown to lose more than TOLERATED_LOSS_RATE of its runs, and `other` lost none."""

    def percent(self, value: float | None) -> float | None:
        """A difference as percent of the other's loss."""
        return None if value is None or not self.other_loss else 100 * value / self.other_loss


def compare(
    arm: str,
    other: str,
    replicates: Sequence[Replicate],
    *,
    comparisons: int = 1,
    alpha: float = ALPHA,
) -> Comparison:
    """`arm` against `other`, paired by seed; `comparisons` is the number of arms in the family.

    Without MIN_PAIRS pairs there is an effect but no interval. Runs that ended early make no pair; they are
    counted, and an arm that lost one is never called equal (`relation`).
    """
    runs = runs_by_arm(replicates)
    ours, theirs = runs.get(arm, {}), runs.get(other, {})
    pairs = [
        (a, b)
        for seed in sorted(ours.keys() & theirs.keys())
        if (a := ours[seed].loss) is not None and (b := theirs[seed].loss) is not None
    ]
    ran = [
        ours[seed].lost
        for seed, run in theirs.items()
        if run.loss is not None and seed in ours and not ours[seed].missing
    ]
    differences = [a - b for a, b in pairs]
    # Without a pair, the mean of those that finished at all.
    other_losses = [b for _, b in pairs] or [x for run in theirs.values() if (x := run.loss) is not None]
    share = alpha * INTERVAL_SHARE / comparisons
    low, high = _interval(differences, share)
    other_lost = sum(run.lost for run in theirs.values())
    allowed = alpha * (1 - INTERVAL_SHARE) / comparisons / _spent(len(ran))
    return Comparison(
        arm=arm,
        other=other,
        pairs=len(pairs),
        effect=fmean(differences) if pairs else None,
        low=low,
        high=high,
        level=1 - share,
        other_loss=fmean(other_losses) if other_losses else None,
        lost=sum(ran),
        other_lost=other_lost,
        loses_runs=len(ran) >= MIN_PAIRS
        and not other_lost
        and at_least(sum(ran), len(ran), TOLERATED_LOSS_RATE) <= allowed,
    )


def compare_all(
    arms: Sequence[Arm], replicates: Sequence[Replicate], *, alpha: float = ALPHA
) -> dict[str, Comparison]:
    """Every arm but the reference against it, as one family; keys are the arms' names."""
    best = reference(arms)
    others = [arm.name for arm in arms if arm.name != best.name]
    return {
        name: compare(name, best.name, replicates, comparisons=len(others), alpha=alpha) for name in others
    }


def _interval(differences: Sequence[float], share: float) -> tuple[float | None, float | None]:
    """The intersection of the intervals of the first MIN_PAIRS, MIN_PAIRS + 1, ... differences.

    `share` is the chance that any of them misses. If the intersection is empty, one has missed already, and
    the last one is returned.
    """
    low, high, last = -math.inf, math.inf, None
    mean = squares = 0.0
    for count, value in enumerate(differences, start=1):
        # Welford's updates: every look needs the spread of the differences so far.
        step = value - mean
        mean += step / count
        squares += step * (value - mean)
        if count < MIN_PAIRS:
            continue
        half = t_quantile(share / _spent(count), count - 1) * math.sqrt(squares / (count - 1) / count)
        last = (mean - half, mean + half)
        low, high = max(low, last[0]), min(high, last[1])
    if last is None:
        return None, None
    return (low, high) if low <= high else last


def _spent(pairs: int) -> int:
    """The divisor of the error share at this look; the reciprocals over all looks sum to 1."""
    look = max(1, pairs - MIN_PAIRS + 1)
    return look * (look + 1)
