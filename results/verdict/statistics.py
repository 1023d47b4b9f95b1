"""Paired comparisons of replicated configs, their relation to the best, and when to stop replicating.

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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any, Literal, get_args

from files_and_text.plain_values import finite
from search_spaces.dimension import Value

Role = Literal["best", "guideline_default", "row", "one_rate"]
ROLES: tuple[Role, ...] = get_args(Role)

MARGIN = 0.005
"""Share of the reference's loss below which a difference does not matter."""
MOST_MARGIN = 0.5
"""With a larger margin nearly all values would count as equal."""

ALPHA = 0.05
"""Family-wise error rate of a confirmation: the largest probability that any of its verdicts is wrong."""

MIN_PAIRS = 3
"""With fewer pairs there is no interval: two differences do not show their spread."""

INTERVAL_SHARE = 0.8
"""Share of alpha for the intervals. The rest is for lost runs: each further pair divides p by about ten."""

LARGEST_LOSS = 1e6
"""Nats per token; a run that ends above it counts as diverged."""

TOLERATED_LOSS_RATE = 0.1
"""Share of runs that may end early at a value that is not too high."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One config that is replicated."""

    name: str
    role: Role
    """best (the first one is the reference), guideline_default, row (the row's own value, the rest as in the
    best), one_rate (one learning rate for LoRA and embeddings, at its own best main rate)."""
    values: Mapping[str, Value]
    rows: tuple[str, ...] = ()
    """Guideline rows that the arm is there to test."""

    def to_dict(self) -> dict[str, Any]:
        """As the confirm study keeps it in its attribute `arms`."""
        return asdict(self) | {"values": dict(self.values), "rows": list(self.rows)}


@dataclass(frozen=True, kw_only=True)
class Replicate:
    """One run of an arm on a seed."""

    arm: str
    seed: int
    eval_loss: float | None
    """Nats per token at the full budget; None when the run ended early."""
    metric: float | None = None
    """The sweep's metric, where it has one."""
    outcome: str = ""
    """Of a run that ended early. `out_of_memory` and `failed` say nothing about the loss and count as
    missing; everything else, "" included, counts as lost by its config."""

    @property
    def loss(self) -> float | None:
        """The loss where it is finite and at most LARGEST_LOSS, else None."""
        found = finite(self.eval_loss)
        return None if found is None or abs(found) > LARGEST_LOSS else found

    @property
    def missing(self) -> bool:
        """Whether the run says nothing about its config's loss."""
        return self.loss is None and self.outcome in ("out_of_memory", "failed")

    @property
    def lost(self) -> bool:
        """Whether training itself ended the run early."""
        return self.loss is None and not self.missing


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


Relation = Literal["worse", "within", "no_worse", "better", "loses_runs", "open"]


def reference(arms: Sequence[Arm]) -> Arm:
    """The arm that all others are compared with: the first of role `best`. ValueError when there is none."""
    for arm in arms:
        if arm.role == "best":
            return arm
    raise ValueError(f"one arm has the role 'best'; got {[arm.role for arm in arms]}")


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
        and _at_least(sum(ran), len(ran), TOLERATED_LOSS_RATE) <= allowed,
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


def relation(comparison: Comparison, margin: float = MARGIN) -> Relation:
    """What the interval shows against the margin (a share of the other's loss).

    worse: worse by more than the margin. within: apart by less than it. no_worse: not worse by more than it.
    better: better by more than it. loses_runs: ends early too often. open: nothing yet, as always when there
    are lost runs on either side and no difference beyond the margin among those that finished.
    """
    if comparison.loses_runs:
        return "loses_runs"
    if comparison.low is None or comparison.high is None or comparison.other_loss is None:
        return "open"
    bound = margin * abs(comparison.other_loss)
    if comparison.low > bound:
        return "worse"
    if comparison.lost or comparison.other_lost:
        return "open"
    if comparison.high < -bound:
        return "better"
    if comparison.high < bound:
        return "within" if comparison.low > -bound else "no_worse"
    return "open"


def is_clear(
    arms: Sequence[Arm],
    replicates: Sequence[Replicate],
    *,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> bool:
    """Whether replicating can stop: after MIN_PAIRS full rounds, every arm has its relation to the
    reference.

    A round is a seed that every arm has run on, whatever the outcome; runs of an unfinished round are left
    out. May be called after every round: the intervals are corrected for repeated looks, so stopping here
    does not raise the error rate. An arm that lost some runs, but not enough to be called too high, keeps it
    open to the end of the budget.
    """
    runs = runs_by_arm(replicates)
    rounds = set.intersection(*(set(runs.get(arm.name, {})) for arm in arms)) if arms else set()
    if len(rounds) < MIN_PAIRS:
        return False
    full = [run for run in replicates if run.seed in rounds]
    return all(relation(c, margin) != "open" for c in compare_all(arms, full, alpha=alpha).values())


def runs_by_arm(replicates: Sequence[Replicate]) -> dict[str, dict[int, Replicate]]:
    """Arm -> seed -> run; of several runs on one seed a finished one, the first."""
    found: dict[str, dict[int, Replicate]] = {}
    for run in replicates:
        runs = found.setdefault(run.arm, {})
        if run.seed not in runs or runs[run.seed].loss is None:
            runs[run.seed] = run
    return found


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


@lru_cache(maxsize=4096)
def t_quantile(share: float, degrees: int) -> float:
    """The two-sided t quantile that leaves `share` outside."""
    from scipy.special import stdtrit  # here: `sweeps status` does not wait for scipy

    return float(-stdtrit(degrees, share / 2))


def _at_least(successes: int, runs: int, share: float) -> float:
    """The probability of at least so many successes in so many runs, each with probability `share`."""
    from scipy.special import bdtrc

    return float(bdtrc(successes - 1, runs, share))
