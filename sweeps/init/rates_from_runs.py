"""The range of the learning rate that earlier sweeps suggest, wide enough to contradict them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from files_and_text.numbers import number
from search_spaces.dimension import Dimension
from sweeps.init.earlier_runs import EarlierRun

SAME_MODEL, OTHER_MODEL = 3.0, 5.0
"""Factors by which the range goes beyond what a run found, on both sides: an earlier sweep had other data."""
OPEN = 10.0
"""The factor on a side where the run's best may lie beyond what it tried."""
TABLES = 2.0
"""The factor beyond the tables' own values, so that they too can be shown to be too high or too low."""
HIGHEST = 1.0
"""The highest learning rate that a sweep accepts."""
MOST_TRIED = 3
"""Values that are tried right after the guideline default."""


def rate_override(runs: Sequence[EarlierRun], tables: Dimension, model: str) -> dict[str, Any]:
    """What `space: {learning_rate: ...}` says; `tables` is the dimension as the tables give it.

    The range holds what every run found, widened by these factors, and the tables' own values: the guideline
    default stays a trial, and each row can still be tested. It is not cut where ranges from the tables end:
    a run's best may lie near those ends, and the range must hold what contradicts it.
    """
    ends = [end for end in (tables.guideline_low, tables.guideline_high, tables.default) if end is not None]
    lows, highs = [end / TABLES for end in map(float, ends)], [end * TABLES for end in map(float, ends)]
    for run in runs:
        factor = SAME_MODEL if run.model == model else OTHER_MODEL
        lows.append(run.low / (OPEN if run.open_below else factor))
        highs.append(run.high * (OPEN if run.open_above else factor))
    low, high, wanted = _two_digits(min(lows)), _two_digits(min(max(highs), HIGHEST)), _two_digits(max(highs))
    why = "earlier runs: " + "; ".join(run.found for run in runs)
    if high < wanted:
        why += f". Ends at {number(high)}, not {number(wanted)}: a sweep accepts no higher learning rate"
    tried = _distinct([_two_digits(run.rate) for run in runs], float(tables.default))
    return {"low": low, "high": high, "log": True, **({"try": tried} if tried else {}), "why": why}


def _distinct(rates: Sequence[float], default: float) -> list[float]:
    """At most MOST_TRIED, each at least a quarter apart from the others and from the default."""
    kept: list[float] = []
    for rate in rates:
        if all(not 0.8 < rate / other < 1.25 for other in (*kept, default)):
            kept.append(rate)
    return kept[:MOST_TRIED]


def _two_digits(rate: float) -> float:
    return float(f"{rate:.2g}")
