"""Two configurations compared over other evaluation records than those of the sweep.

Intervals over seeds hold the evaluation set fixed: every run is measured on the same records. Here the runs
are held fixed and the records drawn again, each with the losses of both configurations (averaged over common
seeds), so that a difference that rests on few records has a wide interval. The difference is the one of the
losses themselves, weighted by tokens. The interval is the bootstrap-t (Efron, 1982), since records of very
different lengths make simpler ones too narrow. Where one or a few records make the difference, many draws
lack them and have nearly no standard error to divide by, so no end lies further than MOST_ERRORS from the
difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results.comparison.constants import MARGIN
from results.record_losses import RecordLosses

MIN_RECORDS = 20
"""With fewer records there is no interval: they do not show how much records differ."""
MOST_DRAWS, LEAST_DRAWS = 2000, 500
"""Evaluation sets that are drawn, fewer where they are large."""
LEVEL = 0.95
MOST_ERRORS = 6.0
"""Standard errors from the difference to an end of its interval at most: a record that is one of n may well
be 5.6 of n (95%, Clopper-Pearson), which is 4.6 errors more; unequal ones need some more."""
FEW_SHARE, FEW = 0.02, 10
"""A difference rests on few records if it does not matter without this share of them, and at most so many."""
_DRAWN_RECORDS = 2_000_000
_DRAWN_AT_ONCE = 500_000


@dataclass(frozen=True, kw_only=True)
class RecordComparison:
    """What one configuration costs against another, over other evaluation records."""

    records: int
    """Records of the evaluation set."""
    seeds: int
    """Common seeds over which losses were averaged; 0: the sweep's own single run of each."""
    percent: float
    """Difference of the mean losses in percent of the other's, positive where the first is worse."""
    low_percent: float
    high_percent: float
    """Ends of its 95% interval."""
    rests_on: int | None
    """The fewest records without which the difference is within the margin; None where those are not few, and
    where it is within the margin anyway."""


def compare_records(
    ours: Sequence[RecordLosses], theirs: Sequence[RecordLosses], *, seeds: int = 0, margin: float = MARGIN
) -> RecordComparison | None:
    """`ours` against `theirs`, one run of each per seed.

    None without runs, with fewer than MIN_RECORDS records, and where the runs were not measured on the same
    ones.
    """
    runs = [*ours, *theirs]
    if not ours or not theirs or len(runs[0].tokens) < MIN_RECORDS:
        return None
    tokens = runs[0].tokens
    if any(not np.array_equal(run.tokens, tokens) for run in runs):
        return None
    theirs_nats = np.mean([run.nats for run in theirs], axis=0)
    differences = np.mean([run.nats for run in ours], axis=0) - theirs_nats
    if not theirs_nats.sum() > 0:
        return None
    low, high = _interval(differences, theirs_nats)
    return RecordComparison(
        records=len(tokens),
        seeds=seeds,
        percent=100 * float(differences.sum() / theirs_nats.sum()),
        low_percent=100 * low,
        high_percent=100 * high,
        rests_on=_rests_on(differences, theirs_nats, margin),
    )


def _interval(above: NDArray[np.float64], below: NDArray[np.float64]) -> tuple[float, float]:
    """The interval of the ratio of the sums of `above` and `below` (records,), by the bootstrap-t."""
    columns = np.stack([above, below, above**2, above * below, below**2], axis=1)  # (records, 5)
    ratio, error = _ratios(columns.sum(0)[None])
    drawn, errors = _ratios(_drawn_sums(columns))
    with np.errstate(divide="ignore", invalid="ignore"):
        away = (drawn - ratio[0]) / errors
    # 0 / 0: all records are the same, and so is every draw.
    away = np.clip(np.where(np.isnan(away), 0.0, away), -MOST_ERRORS, MOST_ERRORS)
    high, low = ratio[0] - np.quantile(away, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) * error[0]
    return max(float(low), -1.0), float(high)  # no loss is below 0


def _ratios(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ratio of each set of sums (sets, 5), and its standard error."""
    above, below, above_above, above_below, below_below = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above / below
        squares = above_above - 2 * ratio * above_below + ratio**2 * below_below
        return ratio, np.sqrt(np.maximum(squares, 0.0)) / below


def _drawn_sums(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """The column sums (draws, columns) of records drawn with replacement, the same for every comparison."""
    count, generator = len(columns), np.random.default_rng(0)
    draws = max(LEAST_DRAWS, min(MOST_DRAWS, _DRAWN_RECORDS // count))
    at_once = max(1, _DRAWN_AT_ONCE // count)
    sums = []
    for first in range(0, draws, at_once):
        size = min(at_once, draws - first)
        places = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(places.ravel(), minlength=size * count).reshape(size, count)
        sums.append(times @ columns)
    return np.concatenate(sums)


def _rests_on(differences: NDArray[np.float64], nats: NDArray[np.float64], margin: float) -> int | None:
    total, share = float(nats.sum()), float(differences.sum() / nats.sum())
    if abs(share) <= margin:
        return None
    side = math.copysign(1.0, share)
    order = np.argsort(-side * differences, kind="stable")[: min(FEW, max(1, int(FEW_SHARE * len(nats))))]
    left = (differences.sum() - np.cumsum(differences[order])) / (total - np.cumsum(nats[order]))
    within = np.flatnonzero(side * left <= margin)
    return int(within[0]) + 1 if len(within) else None
