"""The conditions of a row beside those of the runs that test it, and a plain statement where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from files_and_text.numbers import parameters
from files_and_text.plain_values import finite
from results.verdict.conditions import conjunction
from search_spaces import GuidelineRow

FOUR_BIT = ("nf4", "nf4-single", "fp4", "fp4-double", "int4", "4-bit")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition, in words, on both sides."""

    name: str
    row: str
    """"" when the row does not say."""
    here: str
    """"" when the runs did not record it."""
    differs: bool = False


def conditions_of(row: GuidelineRow, context: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Model size, steps, batch, 4-bit or not, alpha convention, embeddings, scenario: the row's and those
    here."""
    when = row.when
    size, steps = finite(context.get("model_size")), context.get("max_steps")
    trained = context.get("train_embeddings")
    quantization = str(context.get("quantization") or "")
    base = {"qlora": "4-bit", "full": "no adapters"}.get(when.method or "", "")
    sizes = _bounds(when.model_size_billions_low, when.model_size_billions_high, "B")
    lengths = _bounds(when.max_steps_low, when.max_steps_high, " steps")
    wanted = "" if when.train_embeddings is None else _yes(when.train_embeddings)
    return (
        Condition(
            name="model size",
            row=sizes,
            here="" if size is None else parameters(size),
            differs=bool(sizes) and size is not None and when.size_distance(size) > 0,
        ),
        Condition(
            name="steps",
            row=lengths,
            here="" if steps is None else f"{steps} steps",
            differs=when.by_steps and steps is not None and not when.steps_hold(int(steps)),
        ),
        Condition(name="batch", row="", here=_batch(context)),
        Condition(
            name="base",
            row=base,
            here=quantization,
            differs=base == "4-bit" and bool(quantization) and quantization not in FOUR_BIT,
        ),
        Condition(name="alpha", row="", here=str(context.get("alpha_convention") or "")),
        Condition(
            name="embeddings trained",
            row=wanted,
            here="" if trained is None else _yes(bool(trained)),
            differs=bool(wanted) and trained is not None and bool(trained) != when.train_embeddings,
        ),
        Condition(name="task", row=row.condition, here=str(context.get("scenario") or "")),
    )


def statement(conditions: Sequence[Condition]) -> str:
    """Where they differ and what the row leaves open, in a sentence or two; "" when nothing does."""
    said = [f"the {c.name} is {c.here} here and {c.row} in the row" for c in conditions if c.differs]
    silent = [f"{c.name} ({c.here})" for c in conditions if not c.row and c.here]
    parts = [f"Conditions differ: {'; '.join(said)}."] if said else []
    return " ".join(parts + ([f"The row does not say {conjunction(silent)}."] if silent else []))


def _batch(context: Mapping[str, Any]) -> str:
    size = finite(context.get("per_device_train_batch_size"))
    steps = finite(context.get("gradient_accumulation_steps")) or 1
    return "" if size is None else f"{size * steps:.0f}"


def _bounds(low: float | None, high: float | None, unit: str) -> str:
    if low is None and high is None:
        return ""
    if low is None or high is None:
        return f"at most {high:g}{unit}" if low is None else f"at least {low:g}{unit}"
    return f"{low:g}{unit}" if low == high else f"{low:g} to {high:g}{unit}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
