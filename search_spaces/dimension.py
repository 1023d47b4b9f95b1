"""One hyperparameter of a search space: its range or choices, the guideline rows behind them, its default."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from files_and_text.numbers import six_digits
from files_and_text.plain_values import plain

Value = float | int | str
KINDS = ("float", "int", "categorical")


class Trial(Protocol):
    """What `suggest` needs of Optuna's Trial."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A float of the inclusive range."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number of the inclusive range."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """What may be tried of one hyperparameter, and what the guideline rows say about it."""

    name: str
    kind: str
    """"float", "int" or "categorical"."""
    low: float | None = None
    high: float | None = None
    """Inclusive; equal to `low` for a fixed value; None for a categorical."""
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] | None = None
    guideline_low: float | None = None
    guideline_high: float | None = None
    """The span of the rows' own values, before widening; None when they give no number."""
    guideline_choices: tuple[str, ...] = ()
    """The names that the rows recommend for this run."""
    default: Value
    """The rows' own value, or the nearest one that the user's range allows."""
    rows: tuple[str, ...] = ()
    """Ids of the rows that the range comes from; empty when the documents are silent."""
    active_when: tuple[str, tuple[Value, ...]] | None = None
    """(another dimension, its values under which this one exists); None when it always exists."""
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"the kind of {self.name!r} is one of {', '.join(KINDS)}; got {self.kind!r}.")
        if self.kind == "categorical":
            if not self.choices or len(set(self.choices)) != len(self.choices):
                raise ValueError(f"{self.name!r} needs distinct choices; got {self.choices!r}.")
        elif self.low is None or self.high is None or not self.low <= self.high:
            raise ValueError(f"{self.name!r} needs low <= high; got {self.low!r} and {self.high!r}.")
        elif self.log and self.low <= 0:
            raise ValueError(f"{self.name!r} is searched on a log scale and needs low > 0; got {self.low!r}.")
        if not self.contains(self.default):
            raise ValueError(f"the default of {self.name!r} must lie inside it; got {self.default!r}.")

    @property
    def fixed(self) -> bool:
        """Whether only one value is allowed."""
        return len(self.choices or ()) == 1 if self.kind == "categorical" else self.low == self.high

    def contains(self, value: object) -> bool:
        """Whether a trial may take this value."""
        if self.kind == "categorical":
            return value in (self.choices or ())
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.low is None or self.high is None or not self.low <= value <= self.high:
            return False
        if self.step is None:
            return self.kind == "float" or value == int(value)
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    def is_active(self, params: Mapping[str, Any]) -> bool:
        """Whether the dimension exists in a trial with these values."""
        return self.active_when is None or params.get(self.active_when[0]) in self.active_when[1]

    def grid(self, points: int) -> list[Value]:
        """At most `points` values from low to high, evenly (in log when `log`); or all choices."""
        if self.kind == "categorical":
            return list(self.choices or ())
        low, high = self.bounds()
        if self.fixed or points == 1:
            return [self.default]
        shares = [index / (points - 1) for index in range(points)]
        if self.log:
            values = [math.exp(math.log(low) + share * (math.log(high) - math.log(low))) for share in shares]
        else:
            values = [low + share * (high - low) for share in shares]
        step = self.step or (1 if self.kind == "int" else None)
        if step is not None:
            values = [low + round((value - low) / step) * step for value in values]
            values = [value if value <= high else value - step for value in values]
        # Clipped to the ends: exp(log(x)) can be just outside, which Optuna refuses.
        values = [min(max(six_digits(value), low), high) for value in values]
        kept = list(dict.fromkeys(values))
        return [int(value) for value in kept] if self.kind == "int" else list(kept)

    def bounds(self) -> tuple[float, float]:
        """`low` and `high` of a dimension that is not categorical."""
        if self.low is None or self.high is None:
            raise TypeError(f"{self.name!r} is categorical and has no bounds.")
        return self.low, self.high

    def ends(self) -> tuple[float, ...]:
        """Numbers that include the lowest and the highest value."""
        return self.bounds() if self.choices is None else tuple(map(float, self.choices))

    def suggest(self, trial: Trial) -> Value:
        """This dimension's value in an Optuna trial."""
        if self.kind == "categorical":
            value: Value = trial.suggest_categorical(self.name, list(self.choices or ()))
            return value
        low, high = self.bounds()
        if self.kind == "int":
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(self.name, int(low), int(high), step=step, log=self.log)
        return trial.suggest_float(self.name, low, high, step=self.step, log=self.log)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `dimension_from_dict` reads it back."""
        data: dict[str, Any] = plain(asdict(self))
        return data


def dimension_from_dict(data: Mapping[str, Any]) -> Dimension:
    """The dimension that `Dimension.to_dict` wrote; raises TypeError or ValueError."""
    read = dict(data)
    for name in ("choices", "guideline_choices", "rows"):
        if read.get(name) is not None:
            read[name] = tuple(read[name])
    if read.get("active_when") is not None:
        deciding, values = read["active_when"]
        read["active_when"] = (deciding, tuple(values))
    return Dimension(**read)
