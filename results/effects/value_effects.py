"""What a value costs by itself: everything else as the best, from all trials with the full budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from files_and_text.plain_values import finite
from results.effects.coordinates import (
    MEAN_RATE,
    SAME,
    Coordinates,
    Values,
    changed,
    coordinates_of,
    differences,
)
from results.effects.surface_model import Difference, SurfaceModel
from results.sweep_result import SweepResult, TrialResult
from search_spaces.dimension import Value

LEAST_TRIALS = 6
"""Finished trials below which no model is fitted; and two more than there are searched hyperparameters."""
_MOST_TRIALS = 64
"""The lowest losses are kept: the model is about what lies near the best."""
_BEYOND = 0.03
"""How far outside of what was tried a value may lie, on the scale of its coordinate."""
_GRID = 16
_BASES = {"embedding_learning_rate": "embedding_lr_ratio", "warmup_steps": "warmup_ratio"}


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The loss with one value changed minus the best's, by a model of the finished trials."""

    nats: float
    low: float
    high: float
    """Ends of the 95% interval, nats."""
    percent: float | None
    low_percent: float | None
    high_percent: float | None
    """In percent of the best's loss; None where that is not above 0."""
    value: Value
    """The value that it is about: of a range the end towards the best, of several names the cheapest."""
    trials: int
    """That the model rests on."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far a number can move from the best before it costs more than the margin, by the model."""

    low: float | None = None
    high: float | None = None
    """Least and greatest values that cost less than the margin with 97.5% certainty; None: the best's."""
    beyond_low: float | None = None
    beyond_high: float | None = None
    """Nearest values that cost more than the margin with the same certainty; None where there is none."""


class ValueEffects:
    """The effects of a sweep's values against its best; the model is fitted when the first is asked for."""

    def __init__(self, sweep: SweepResult, *, has_model: bool = True) -> None:
        """Without a model there are matched trials alone."""
        self._has_model = has_model
        self._sweep = sweep
        self.best = sweep.best
        self._coordinates: Coordinates = coordinates_of(sweep)
        self._effects: dict[tuple[str, tuple[Value, ...]], Effect | None] = {}
        self._reaches: dict[tuple[str, float], Reach | None] = {}
        self._trials = [t for t in sweep.finished if t.eval_loss is not None][:_MOST_TRIALS]

    @property
    def trials(self) -> int:
        """Those that a model rests on."""
        return len(self._trials)

    def of(self, parameter: str, values: Sequence[Value]) -> Effect | None:
        """The cheapest of the values; None where there are too few trials, none near any of the values, or
        where the model knows less of it than what training gains: the 95% interval is wider than the cost of
        the untouched base."""
        key = (parameter, tuple(values))
        if key not in self._effects:
            self._effects[key] = self._cheapest(parameter, values)
        return self._effects[key]

    def _cheapest(self, parameter: str, values: Sequence[Value]) -> Effect | None:
        found = [(value, point) for value in values if (point := self._point(parameter, value)) is not None]
        if not found or self._model is None or self._reference is None:
            return None
        differences = self._model.differences(np.array([point for _, point in found]), self._reference)
        value, cheapest = min(
            ((value, difference) for (value, _), difference in zip(found, differences, strict=True)),
            key=lambda pair: pair[1].middle,
        )
        return self._effect(value, cheapest) if cheapest.high - cheapest.low <= self._gain else None

    def reach(self, parameter: str, margin: float) -> Reach | None:
        """Of a number; None where there are too few trials. `margin` is a share of the best's loss."""
        key = (parameter, margin)
        if key not in self._reaches:
            self._reaches[key] = self._reach(parameter, margin)
        return self._reaches[key]

    def _reach(self, parameter: str, margin: float) -> Reach | None:
        best = None if self.best is None else finite(self.best.values.get(parameter))
        if best is None or self.best is None or self.best.eval_loss is None or self._model is None:
            return None
        tried = [x for t in self._trials if (x := finite(t.values.get(parameter))) is not None]
        low = self._side(parameter, best, min(tried), margin * abs(self.best.eval_loss))
        high = self._side(parameter, best, max(tried), margin * abs(self.best.eval_loss))
        return Reach(low=low[0], high=high[0], beyond_low=low[1], beyond_high=high[1])

    def differing(self, parameter: str, trial: TrialResult) -> tuple[str, ...]:
        """The other searched hyperparameters in which a trial differs from the best, as far as it matters."""
        if self.best is None:
            return ()
        base = self._base(parameter)
        return tuple(differences(trial.values, self.best.values, self._coordinates, apart_from=base))

    def matched(self, parameter: str) -> list[TrialResult]:
        """The best, and the finished trials that differ from it in nothing but `parameter`; best first."""
        return [t for t in self._sweep.finished if t is self.best or not self.differing(parameter, t)]

    def is_same(self, parameter: str, one: Values, other: Values) -> bool:
        """Whether two trials have the same value as far as training sees it: warmups in whole steps."""
        if self._base(parameter) != "warmup_ratio":
            return one.get(parameter) == other.get(parameter)
        ours, theirs = finite(one.get("warmup_steps")), finite(other.get("warmup_steps"))
        return (
            one.get(parameter) == other.get(parameter) if ours is None or theirs is None else ours == theirs
        )

    @cached_property
    def _gain(self) -> float:
        """What the best gains over the untouched base, nats; infinite where that is not known or nothing."""
        base, best = self._sweep.base_eval_loss, None if self.best is None else self.best.eval_loss
        return base - best if base is not None and best is not None and base > best else math.inf

    @cached_property
    def _reference(self) -> NDArray[np.float64] | None:
        return None if self.best is None else self._coordinates.of(self.best.values)

    @cached_property
    def _points(self) -> NDArray[np.float64]:
        return np.array([self._coordinates.of(trial.values) for trial in self._trials])

    @cached_property
    def _model(self) -> SurfaceModel | None:
        searched = len(self._coordinates.dimensions)
        if not self._has_model or not searched or len(self._trials) < max(LEAST_TRIALS, searched + 2):
            return None
        losses = np.array([trial.eval_loss for trial in self._trials], dtype=float)
        return SurfaceModel(self._points, losses, is_name=self._coordinates.is_name)

    def _base(self, parameter: str) -> str:
        """The searched dimension behind a parameter."""
        base = _BASES.get(parameter, parameter)
        if base == "embedding_lr_ratio" and base not in self._coordinates.dimensions:
            return "learning_rate"  # with a fixed ratio the embeddings follow the main rate
        return base

    def _point(self, parameter: str, value: Value) -> NDArray[np.float64] | None:
        """None where no finished trial is near enough for anything to be known."""
        if self.best is None or self._base(parameter) not in self._coordinates.dimensions:
            return None
        is_ratio_searched = "embedding_lr_ratio" in self._coordinates.dimensions
        values = changed(self.best, parameter, value, self._trials, is_ratio_searched=is_ratio_searched)
        if values is None or len(self._trials) < LEAST_TRIALS:
            return None
        point = self._coordinates.of(values)
        for index, name in enumerate(self._coordinates.names):
            seen = self._points[:, index]
            seen, place = seen[~np.isnan(seen)], point[index]
            if name not in (MEAN_RATE, self._base(parameter)):
                continue
            if name in self._coordinates.codes:
                if not (seen == place).any():
                    return None
            elif math.isnan(place):
                continue
            elif not len(seen) or not seen.min() - _BEYOND <= place <= seen.max() + _BEYOND:
                return None
        return point

    def _side(
        self, parameter: str, best: float, end: float, margin: float
    ) -> tuple[float | None, float | None]:
        """Going from the best's value to an end: the last value surely within, the first surely beyond."""
        steps = np.linspace(0.0, 1.0, _GRID + 1)[1:]
        is_log = best > 0 and end > 0 and self._base(parameter) != "warmup_ratio"
        values = best * (end / best) ** steps if is_log else best + (end - best) * steps
        if self._base(parameter) == "warmup_ratio" and parameter == "warmup_steps":
            values = np.round(values)
        found = [(float(v), p) for v in values if (p := self._point(parameter, float(v))) is not None]
        if not found or end == best or self._model is None or self._reference is None:
            return None, None
        differences = self._model.differences(np.array([point for _, point in found]), self._reference)
        within: float | None = None
        is_connected = True
        for (value, point), difference in zip(found, differences, strict=True):
            if difference.low > margin:
                return within, _short(value)
            is_connected = is_connected and difference.high <= margin
            if is_connected and np.nanmax(np.abs(point - self._reference)) > SAME:
                within = _short(value)
        return within, None

    def _effect(self, value: Value, difference: Difference) -> Effect:
        loss = 0.0 if self.best is None else self.best.eval_loss or 0.0
        nats, low, high = (_short(x) for x in (difference.middle, difference.low, difference.high))

        def percent(nats: float) -> float | None:
            return _short(100 * nats / loss) if loss > 0 else None

        return Effect(
            nats=nats,
            low=low,
            high=high,
            percent=percent(difference.middle),
            low_percent=percent(difference.low),
            high_percent=percent(difference.high),
            value=value,
            trials=len(self._trials),
        )


def _short(value: float) -> float:
    """Three digits: more would be those of one machine's arithmetic."""
    return float(f"{value:.3g}")
