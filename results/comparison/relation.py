"""What a comparison shows against the margin."""

from __future__ import annotations

from typing import Literal

from results.comparison.constants import MARGIN
from results.comparison.paired import Comparison

Relation = Literal["worse", "within", "no_worse", "better", "loses_runs", "open"]


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
