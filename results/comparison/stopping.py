"""Which arms are undecided, and when replicating can stop."""

from __future__ import annotations

from collections.abc import Sequence

from results.comparison.arms import Arm, Replicate
from results.comparison.constants import ALPHA, MARGIN, MOST_SEEDS
from results.comparison.paired import compare_all
from results.comparison.relation import relation


def undecided(
    arms: Sequence[Arm],
    replicates: Sequence[Replicate],
    *,
    margin: float = MARGIN,
    most_seeds: int = MOST_SEEDS,
    alpha: float = ALPHA,
) -> frozenset[str]:
    """Names of the arms that have no relation to the reference yet; the others need no further runs.

    May be asked after every run: the intervals are corrected for repeated looks, so that stopping by it does
    not raise the error rate. An arm that lost some runs, but not enough to be called too high, can remain
    undecided to the end of the budget.
    """
    found = compare_all(arms, replicates, most_seeds=most_seeds, alpha=alpha)
    return frozenset(name for name, comparison in found.items() if relation(comparison, margin) == "open")


def is_clear(
    arms: Sequence[Arm],
    replicates: Sequence[Replicate],
    *,
    margin: float = MARGIN,
    most_seeds: int = MOST_SEEDS,
    alpha: float = ALPHA,
) -> bool:
    """Whether replicating can stop: every arm has its relation to the reference."""
    if len(arms) < 2:
        return False
    return not undecided(arms, replicates, margin=margin, most_seeds=most_seeds, alpha=alpha)
