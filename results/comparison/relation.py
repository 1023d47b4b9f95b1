"""What a comparison shows against the margin."""

from __future__ import annotations

from typing import Literal

from results.comparison.constants import MARGIN
from results.comparison.paired import Comparison

Relation = Literal["worse", "within", "no_worse", "better", "loses_runs", "open"]


WIDE = 4.0
"""An interval of more than so many margins shows `better` only where it lies below zero by that part of its
width."""


def relation(comparison: Comparison, margin: float = MARGIN) -> Relation:
    """What the interval shows against the margin (a share of the other's loss).

    worse: worse by more than the margin. within: apart by less than it. no_worse: not worse by more than it.
    better: better by more than it. loses_runs: ends early too often. open: nothing yet.

    Further runs never take a relation back: `open` may become any other, `no_worse` become `within` or
    `better`, and `loses_runs` become `worse`. Once either config has lost a run, what had been shown before
    stands, and beyond it only `worse` and `loses_runs` can be shown.
    """
    low, high, loss = comparison.low, comparison.high, comparison.margin_loss
    loss = comparison.other_loss if loss is None else loss
    shown: Relation = "loses_runs" if comparison.loses_runs else "open"
    if low is None or high is None or loss is None:
        return shown
    bound = margin * abs(loss)
    if low > bound:
        return "worse"
    if comparison.lost or comparison.other_lost:
        if comparison.before_loss is None:
            return shown
        low, high = comparison.before_loss
    # About an arm within the margin both ends can be wrong, where the noise is far above the margin.
    if high < -max(bound, (high - low) / WIDE):
        return "better"
    if high < bound:
        return "within" if low > -bound else "no_worse"
    return shown
