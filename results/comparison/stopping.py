"""When replicating can stop."""

from __future__ import annotations

from collections.abc import Sequence

from results.comparison.arms import Arm, Replicate, runs_by_arm
from results.comparison.constants import ALPHA, MARGIN, MIN_PAIRS
from results.comparison.paired import compare_all
from results.comparison.relation import relation


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
