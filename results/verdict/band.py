"""Which values of a hyperparameter came within the margin of the best, and best values at an end of the
search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from files_and_text.plain_values import finite
from results.comparison.constants import MARGIN
from results.effects.value_effects import Reach, ValueEffects
from results.sweep_result import SweepResult
from search_spaces.dimension import Value
from search_spaces.from_rows.schedule import MOST_WARMUP

EDGE_SHARE = 0.05
"""A best value is at the edge when it is this close to an end, as a share of the searched range."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """The values whose loss is within the margin of the lowest, everything else as the best trial has it."""

    parameter: str
    margin: float
    low: float | None
    high: float | None
    """Least and greatest value within; None for names."""
    names: tuple[str, ...]
    """Names within, the best first; empty for numbers."""
    beyond_low: float | None
    beyond_high: float | None
    """Nearest values outside: the band ends between `low` and `beyond_low`. None where nothing that differs
    in this value alone was tried there (or nothing that noise leaves clearly outside), and the model of all
    trials knows none either: the band is not bracketed on that side."""
    by_model: tuple[str, ...]
    """Which of low, high, beyond_low and beyond_high are those of the model, and not of a trial."""
    best: Value
    num_within: int
    num_trials: int
    """Finished trials that differ from the best in this value alone, the best included."""
    num_in_model: int
    """Finished trials that the model rests on; 0 where it says nothing of the band."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The best value lies at an end of what was searched: the real best may lie beyond."""

    dimension: str
    side: Literal["low", "high"]
    value: float
    end: float


def band_of(
    parameter: str, effects: ValueEffects, *, margin: float = MARGIN, noise: float = 0.0
) -> Band | None:
    """The band of `parameter` around the best trial's value; None where the best has none.

    Trials that differ from the best elsewhere too say nothing about where the band ends: only those that
    match it in all else bound it, and behind them the model of all trials, whose 97.5% bounds have to lie on
    one side of the margin. No curve is fitted through matched trials: the loss is flat on one side and steep
    on the other. `margin` is a share of the lowest loss, `noise` the standard deviation of a run in nats (0:
    not known): a trial is outside only when two runs' noise (2 sqrt(2) noise) does not explain it.
    """
    best = effects.best
    if best is None or best.eval_loss is None or parameter not in best.values:
        return None
    value, lowest = best.values[parameter], best.eval_loss
    found = [
        (value if effects.is_same(parameter, trial.values, best.values) else trial.values[parameter], loss)
        for trial in effects.matched(parameter)
        if (loss := trial.eval_loss) is not None and parameter in trial.values
    ]
    bound = lowest + margin * abs(lowest)
    within = [(x, loss) for x, loss in found if loss <= bound]
    numbers = [number for x, _ in within if (number := finite(x)) is not None]
    names: tuple[str, ...] = ()
    ends: dict[str, float | None] = dict.fromkeys(_ENDS)
    by_model: tuple[str, ...] = ()
    if len(numbers) == len(within):
        clear = bound + 2 * math.sqrt(2) * noise
        outside = [number for x, loss in found if loss > clear and (number := finite(x)) is not None]
        ends["low"], ends["high"] = min(numbers), max(numbers)
        ends["beyond_low"] = max((x for x in outside if x < min(numbers)), default=None)
        ends["beyond_high"] = min((x for x in outside if x > max(numbers)), default=None)
        by_model = _with_model(ends, effects.reach(parameter, margin))
    else:
        names = tuple(dict.fromkeys(str(x) for x, _ in sorted(within, key=lambda point: point[1])))
    return Band(
        parameter=parameter,
        margin=margin,
        names=names,
        **ends,
        by_model=by_model,
        best=value,
        num_within=len(within),
        num_trials=len(found),
        num_in_model=effects.trials if by_model else 0,
    )


_ENDS = ("low", "high", "beyond_low", "beyond_high")


def _with_model(ends: dict[str, float | None], reach: Reach | None) -> tuple[str, ...]:
    """Fill in what matched trials leave open, between what they show; the names of what was filled in."""
    if reach is None:
        return ()
    low, high, found = ends["low"], ends["high"], []
    assert low is not None
    assert high is not None
    for name, beyond, value in (
        ("low", ends["beyond_low"], reach.low),
        ("high", ends["beyond_high"], reach.high),
    ):
        is_wider = value is not None and (value < low if name == "low" else value > high)
        if value is not None and is_wider and (beyond is None or (value > beyond) == (name == "low")):
            ends[name] = value
            found.append(name)
    for name, value in (("beyond_low", reach.beyond_low), ("beyond_high", reach.beyond_high)):
        if (
            ends[name] is None
            and value is not None
            and (value < low if name == "beyond_low" else value > high)
        ):
            ends[name] = value
            found.append(name)
    return tuple(found)


def find_edges(sweep: SweepResult) -> list[Edge]:
    """Searched ranges at whose end the best value lies.

    Nothing lies beyond a low end of 0, and nothing is worth a try beyond a warmup of half the run.
    """
    edges = []
    best = {} if sweep.best is None else sweep.best.values
    for name, dimension in sweep.dimensions.items():
        value, low, high = finite(best.get(name)), dimension.low, dimension.high
        if value is None or low is None or high is None or dimension.fixed:
            continue
        share = _share(value, low, high, dimension.log)
        if share <= EDGE_SHARE and low > 0:
            edges.append(Edge(dimension=name, side="low", value=value, end=low))
        elif share >= 1 - EDGE_SHARE and not (name == "warmup_ratio" and high >= MOST_WARMUP):
            edges.append(Edge(dimension=name, side="high", value=value, end=high))
    return edges


def _share(value: float, low: float, high: float, log: bool) -> float:
    if log and min(value, low) > 0:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)
