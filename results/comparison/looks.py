"""The evidence of a confirmation in the order in which its runs ended: each look at each arm, once.

A look uses what had ended by then, and nothing that came later. Further runs only append looks, so what an
arm's interval has excluded once stays excluded, in whichever order runs finish, are made up for, or are added
by a larger budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from results.comparison.arms import Replicate
from results.comparison.constants import (
    ALPHA,
    INTERVAL_SHARE,
    MIN_PAIRS,
    MOST_SEEDS,
    TOLERATED_LOSS_RATE,
)
from results.comparison.noise import (
    NOISY,
    cautious_half,
    degrees_added,
    guarded_variance,
    half_width,
    noisier_variance,
    typical_variance,
)
from results.comparison.quantiles import at_least, t_quantile
from results.comparison.thresholds import look_level


@dataclass(frozen=True, kw_only=True)
class Design:
    """What fixes the thresholds, all of it before the first run."""

    comparisons: int
    """Arms beside the reference."""
    most_seeds: int = MOST_SEEDS
    alpha: float = ALPHA


class Evidence:
    """One arm against the reference, up to the run that ended last."""

    def __init__(self, *, may_be_near_cliff: bool) -> None:
        self.may_be_near_cliff = may_be_near_cliff
        self.pairs = 0
        self.mean = 0.0
        self.squares = 0.0
        self.other_sum = 0.0
        self.margin_loss: float | None = None
        """The reference's mean loss over the first MIN_PAIRS pairs."""
        self.low, self.high = -math.inf, math.inf
        self.before_loss: tuple[float, float] = (-math.inf, math.inf)
        """The ends at the last look before either config lost a run."""
        self.contradicted = False
        self.ran = 0
        """Seeds on which the reference finished and this arm was not missing."""
        self.lost = 0
        self.loses_runs = False

    @property
    def variance(self) -> float:
        return self.squares / (self.pairs - 1)

    def add_pair(self, ours: float, theirs: float) -> None:
        # Welford's updates: every look needs the spread of the differences so far.
        self.pairs += 1
        difference = ours - theirs
        step = difference - self.mean
        self.mean += step / self.pairs
        self.squares += step * (difference - self.mean)
        self.other_sum += theirs
        if self.pairs == MIN_PAIRS:
            self.margin_loss = self.other_sum / self.pairs

    def look(self, design: Design, variances: Sequence[tuple[float, int]], *, is_sound: bool) -> None:
        """Intersect the interval with that of the pairs so far; `is_sound`: no run was lost on either side.

        A look that contradicts those before changes nothing: what they have shown stands.
        """
        degrees, added = self.pairs - 1, degrees_added(len(variances))
        typical = typical_variance(variances)
        variance = guarded_variance(self.variance, degrees, typical, added)
        level = look_level(self.pairs, design.comparisons, design.most_seeds, design.alpha)
        quantile = t_quantile(2 * level, degrees + added)
        half = above = half_width(variance, self.pairs, quantile)
        if self.may_be_near_cliff or self.variance > NOISY * typical:
            noisier = noisier_variance(variances)
            above = cautious_half(variance, noisier, self.pairs, design.comparisons, quantile)
        low, high = max(self.low, self.mean - half), min(self.high, self.mean + above)
        if not low <= high:
            self.contradicted = True
            return
        self.low, self.high = low, high
        if is_sound:
            self.before_loss = low, high

    def count_run(self, design: Design, *, lost: bool, others_lost: bool) -> None:
        """Count a seed on which the reference finished; once shown to lose its runs, an arm remains so."""
        self.ran += 1
        self.lost += lost
        if self.ran < MIN_PAIRS or others_lost:
            return
        look = self.ran - MIN_PAIRS + 1
        allowed = design.alpha * (1 - INTERVAL_SHARE) / design.comparisons / (look * (look + 1))
        self.loses_runs |= at_least(self.lost, self.ran, TOLERATED_LOSS_RATE) <= allowed


@dataclass(frozen=True, kw_only=True)
class AllEvidence:
    """Every arm against the reference."""

    arms: Mapping[str, Evidence]
    other_lost: int
    """Seeds on which the reference ended early."""
    other_losses: Sequence[float]
    """Of the reference's runs that finished."""


def all_evidence(
    names: Mapping[str, bool], other: str, replicates: Sequence[Replicate], design: Design
) -> AllEvidence:
    """Every arm of `names` against `other`, from runs in the order in which they ended.

    `names` says whether the arm may lie near the cliff. Of several runs of an arm on one seed the first
    counts that is not missing.
    """
    found = {name: Evidence(may_be_near_cliff=risky) for name, risky in names.items()}
    runs: dict[str, dict[int, Replicate]] = {name: {} for name in (*names, other)}
    other_lost = 0
    for run in replicates:
        if run.missing or run.arm not in runs or run.seed in runs[run.arm]:
            continue
        runs[run.arm][run.seed] = run
        if run.arm == other and run.lost:
            other_lost += 1
        with_pair = list(names) if run.arm == other else [run.arm]
        paired: list[Evidence] = []
        for name in with_pair:
            ours, theirs = runs[name].get(run.seed), runs[other].get(run.seed)
            if ours is None or theirs is None or theirs.loss is None:
                continue
            arm = found[name]
            arm.count_run(design, lost=ours.lost, others_lost=other_lost > 0)
            if ours.loss is not None:
                arm.add_pair(ours.loss, theirs.loss)
                paired.append(arm)
        due = [arm for arm in paired if arm.pairs >= MIN_PAIRS]
        if due:
            variances = [(arm.variance, arm.pairs - 1) for arm in found.values() if arm.pairs > 1]
            for arm in due:
                arm.look(design, variances, is_sound=not (arm.lost or other_lost))
    losses = [loss for run in runs[other].values() if (loss := run.loss) is not None]
    return AllEvidence(arms=found, other_lost=other_lost, other_losses=losses)
