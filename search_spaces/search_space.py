"""The search space of a sweep: its dimensions in order, and the trials to start from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from files_and_text.nearest_name import nearest
from files_and_text.plain_values import plain
from files_and_text.problems import InputError
from search_spaces.dimension import Dimension, Trial, Value, dimension_from_dict


@dataclass(frozen=True, kw_only=True)
class FirstTrial:
    """A trial that tries the guideline rows' own values."""

    params: dict[str, Value]
    """A value for every active dimension."""
    rows: tuple[str, ...]
    """Ids of the rows whose own values it has."""
    label: str


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Everything that a sweep may try, in the order in which Optuna is asked."""

    dimensions: tuple[Dimension, ...]
    first_trials: tuple[FirstTrial, ...] = ()
    """The rows' own values as complete trials within the space, the guideline default first."""
    context: dict[str, Any] = field(default_factory=dict)
    """What the space was built for (scenario, model_size, ...), the factors, and notes for a reader."""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for dimension in self.dimensions:
            if dimension.name in seen:
                raise ValueError(f"the dimension {dimension.name!r} is given twice.")
            if dimension.active_when is not None and dimension.active_when[0] not in seen:
                # Otherwise a trial could not tell whether the dimension exists when Optuna is asked for it.
                raise ValueError(f"{dimension.name!r} must come after {dimension.active_when[0]!r}.")
            seen.add(dimension.name)

    @property
    def names(self) -> tuple[str, ...]:
        """The dimensions' names in order."""
        return tuple(dimension.name for dimension in self.dimensions)

    def __getitem__(self, name: str) -> Dimension:
        for dimension in self.dimensions:
            if dimension.name == name:
                return dimension
        raise KeyError(f"there is no dimension {name!r}.{nearest(name, self.names)}")

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """Ask an Optuna trial for a value of every active dimension, fixed ones included."""
        params: dict[str, Value] = {}
        for dimension in self.dimensions:
            if dimension.is_active(params):
                params[dimension.name] = dimension.suggest(trial)
        return params

    def active(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `params` whose dimensions exist in a trial with them."""
        kept: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.name in params and dimension.is_active(kept):
                kept[dimension.name] = params[dimension.name]
        return kept

    def grid(self, points: int) -> dict[str, list[Value]]:
        """Up to `points` values of each dimension, for Optuna's GridSampler.

        GridSampler visits the whole product, where points that differ only in an inactive dimension are one
        trial.
        """
        return {dimension.name: dimension.grid(points) for dimension in self.dimensions}

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the sampler depends on; equal for spaces with the same possible values.

        Sources, notes and first trials are left out, so that a study goes on after a row was reworded.
        """
        keys = ("name", "kind", "low", "high", "log", "step", "choices", "active_when")
        seen = [{key: dimension.to_dict()[key] for key in keys} for dimension in self.dimensions]
        text = json.dumps(_floats(seen), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` reads it back."""
        return {
            "dimensions": [dimension.to_dict() for dimension in self.dimensions],
            "first_trials": [plain(asdict(trial)) for trial in self.first_trials],
            "context": plain(self.context),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchSpace:
        """The space that `to_dict` wrote; raises InputError when it is not one."""
        try:
            return cls(
                dimensions=tuple(dimension_from_dict(item) for item in data["dimensions"]),
                first_trials=tuple(
                    FirstTrial(params=dict(item["params"]), rows=tuple(item["rows"]), label=item["label"])
                    for item in data["first_trials"]
                ),
                context=dict(data["context"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError([f"this is not a search space as to_dict writes it: {error}."]) from error


def _floats(value: Any) -> Any:
    """All numbers as floats, so that 1 and 1.0 hash alike: YAML and JSON may turn one into the other."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Mapping):
        return {key: _floats(item) for key, item in value.items()}
    return [_floats(item) for item in value]
