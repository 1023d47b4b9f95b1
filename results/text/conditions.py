"""A row's conditions beside the sweep's own, and why a row does not apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from files_and_text.numbers import number, parameters
from results.text.values import conjunction
from results.verdict.applicability import Condition, excluding
from results.verdict.row_verdict import RowVerdict


@dataclass(frozen=True, kw_only=True)
class ShownCondition:
    """One condition in words, on both sides; "" where a side does not say."""

    name: str
    row: str
    here: str
    differs: bool


def shown_conditions(conditions: Sequence[Condition]) -> list[ShownCondition]:
    """All but the method, which `base` stands for."""
    return [
        ShownCondition(
            name=c.name,
            row="" if c.row is None else _ROW.get(c.name, str)(c.row),
            here="" if c.here is None else _HERE.get(c.name, str)(c.here),
            differs=c.differs,
        )
        for c in conditions
        if c.name != "method"
    ]


def conditions_statement(conditions: Sequence[Condition]) -> str:
    """Where they differ and what the row leaves open, in a sentence or two; "" when nothing does."""
    shown = shown_conditions(conditions)
    differing = [f"the {c.name} is {c.here} here and {c.row} in the row" for c in shown if c.differs]
    silent = [f"{c.name} ({c.here})" for c in shown if not c.row and c.here]
    parts = [f"Conditions differ: {'; '.join(differing)}."] if differing else []
    return " ".join(parts + ([f"The row does not say {conjunction(silent)}."] if silent else []))


def exclusion(found: RowVerdict) -> str:
    """Why the row does not apply to this sweep; "" when it does."""
    row, conditions = found.row, found.measurement.conditions
    failed = excluding(conditions)
    if failed is None:
        return ""
    about = f"the row is about {row.condition!r}" if row.condition else "the row is about other runs"
    here, by_steps = failed.here, row.when.limits_steps
    match failed.name:
        case "method":
            return f"{about} (method {failed.row}); this sweep's method is {here}"
        case "embeddings trained":
            return f"{about}; this sweep {'trains' if here else 'does not train'} embeddings"
        case "model size" if here is None:
            return f"{about}; this sweep did not record its model's size"
        case "model size":
            return f"{about}; this base has {_parameters(here)} parameters"
        case "steps" if here is None:
            return f"{about}; this sweep did not record its number of steps"
        case "steps":
            return f"{about}; this sweep trains for {here} steps"
    steps = next(c.here for c in conditions if c.name == "steps")
    also = f" and it trains for {steps} steps" if by_steps else ""
    return f"{about}; this sweep's scenario is {here!r}{also}"


def _parameters(size: float) -> str:
    return f"{number(size / 1e9)}B" if size >= 1e8 else f"{number(size / 1e6)}M"


def _bounds(bounds: tuple[float | None, float | None], unit: str) -> str:
    low, high = bounds
    if low is None or high is None:
        return f"at most {high:g}{unit}" if low is None else f"at least {low:g}{unit}"
    return f"{low:g}{unit}" if low == high else f"{low:g} to {high:g}{unit}"


def _yes(value: object) -> str:
    return "yes" if value else "no"


_ROW: Mapping[str, Callable[[Any], str]] = {
    "model size": lambda bounds: _bounds(bounds, "B"),
    "steps": lambda bounds: _bounds(bounds, " steps"),
    "base": lambda method: {"qlora": "4-bit", "full": "no adapters"}.get(method, ""),
    "embeddings trained": _yes,
}
_HERE: Mapping[str, Callable[[Any], str]] = {
    "model size": parameters,
    "steps": lambda steps: f"{steps} steps",
    "batch": lambda size: f"{size:.0f}",
    "embeddings trained": _yes,
}
