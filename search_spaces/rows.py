"""A guideline row: one table cell or rule of a document, with its source and the text's own condition."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from files_and_text.numbers import number_range

METHODS = ("qlora", "full")
TOPICS = (
    "scenario",
    "model_size",
    "batch_size",
    "scheduler",
    "warmup",
    "embedding",
    "method",
    "boundary",
    "stability",
)
DIMENSION_NAMES = (
    "learning_rate",
    "embedding_lr_ratio",
    "lr_scheduler_type",
    "warmup_ratio",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "per_device_train_batch_size",
    "weight_decay",
)
# Quantities that the documents give and the space derives a dimension from.
DERIVED_NAMES = ("embedding_learning_rate", "warmup_steps")
PARAMETERS = DIMENSION_NAMES + DERIVED_NAMES
DIRECTIONS = ("too_high", "too_low")

# "8B" is a name: Llama 3.1 8B has 8.03e9 parameters, Llama 2 7B has 6.74e9, Llama 3.2 3B has 3.21e9.
NOMINAL_SIZE_TOLERANCE = 0.10


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a row was read."""

    document: str
    section: str = ""
    url: str = ""
    """What the document itself refers to; "" when it names nothing."""

    def __str__(self) -> str:
        return f"{self.document}, {self.section}" if self.section else self.document


@dataclass(frozen=True, kw_only=True)
class When:
    """A row's condition for the program; every field None means "always". Bounds are inclusive."""

    scenario: str | None = None
    method: str | None = None
    """"qlora" (adapters on a 4-bit base; the documents' "LoRA" is counted here) or "full"."""
    model_size_billions_low: float | None = None
    model_size_billions_high: float | None = None
    max_steps_low: int | None = None
    max_steps_high: int | None = None
    train_embeddings: bool | None = None

    @property
    def by_steps(self) -> bool:
        """Whether the row is about the length of the run."""
        return self.max_steps_low is not None or self.max_steps_high is not None

    @property
    def by_size(self) -> bool:
        """Whether the row is about the size of the model."""
        return self.model_size_billions_low is not None or self.model_size_billions_high is not None

    def size_distance(self, model_size: float) -> float:
        """Natural-log distance from a number of parameters to the row's sizes; 0 inside or within 10%."""
        billions = model_size / 1e9
        tolerance = math.log1p(NOMINAL_SIZE_TOLERANCE)
        below = above = 0.0
        if self.model_size_billions_low is not None:
            below = math.log(self.model_size_billions_low / billions)
        if self.model_size_billions_high is not None:
            above = math.log(billions / self.model_size_billions_high)
        distance = max(below, above, 0.0)
        return 0.0 if distance <= tolerance else distance

    def steps_hold(self, max_steps: int) -> bool:
        """Whether a run of this many optimizer steps is within the row's bounds."""
        low, high = self.max_steps_low, self.max_steps_high
        return (low is None or max_steps >= low) and (high is None or max_steps <= high)

    def scenario_holds(self, scenario: str, max_steps: int) -> bool:
        """Whether a run of this scenario and length is one that the row speaks of.

        A scenario holds because the user names it, whatever the number of steps; one that the table defines
        by a number of steps ("Short Training (<100 steps)") holds for every run of that length too.
        """
        if self.scenario is not None and (self.scenario == scenario or not self.by_steps):
            return self.scenario == scenario
        return self.steps_hold(max_steps)

    def holds(
        self, *, scenario: str, model_size: float | None, max_steps: int, method: str, train_embeddings: bool
    ) -> bool:
        """Whether the row speaks of such a run (`model_size` in parameters; None leaves the size unasked)."""
        return (
            self.scenario_holds(scenario, max_steps)
            and self.method in (None, method)
            and self.train_embeddings in (None, train_embeddings)
            and (model_size is None or self.size_distance(model_size) == 0.0)
        )

    def can_hold_with(self, other: When) -> bool:
        """Whether one run can meet both conditions."""
        same = all(
            None in (getattr(self, name), getattr(other, name)) or getattr(self, name) == getattr(other, name)
            for name in ("scenario", "method", "train_embeddings")
        )
        return same and all(
            _overlap(
                (getattr(self, f"{name}_low"), getattr(self, f"{name}_high")),
                (getattr(other, f"{name}_low"), getattr(other, f"{name}_high")),
            )
            for name in ("model_size_billions", "max_steps")
        )

    def to_dict(self) -> dict[str, Any]:
        """Only what is set, in the nested form of the YAML files."""
        result: dict[str, Any] = {}
        for name in ("scenario", "method", "train_embeddings"):
            if getattr(self, name) is not None:
                result[name] = getattr(self, name)
        for name in ("model_size_billions", "max_steps"):
            bounds = {end: getattr(self, f"{name}_{end}") for end in ("low", "high")}
            if any(bound is not None for bound in bounds.values()):
                result[name] = {end: bound for end, bound in bounds.items() if bound is not None}
        return result


@dataclass(frozen=True, kw_only=True)
class GuidelineRow:
    """One table cell or rule."""

    id: str
    topic: str
    """One of TOPICS."""
    parameter: str | None
    """A dimension, `embedding_learning_rate` or `warmup_steps`; None when the row is about no parameter."""
    low: float | None = None
    high: float | None = None
    """Equal to `low` for a point value; both None when the row gives no number."""
    choices: tuple[str, ...] = ()
    """Scheduler names, the row's preferred one first."""
    direction: str | None = None
    """"too_high" or "too_low" when the value or sign tells of a rate beyond what works; else None."""
    condition: str = ""
    """The text's own words about when the row holds."""
    when: When = When()
    source: Source
    note: str = ""

    @property
    def value_text(self) -> str:
        """Its number, range or names, with "too high" where it says so; "" when it gives none."""
        if self.choices:
            return " or ".join(self.choices)
        text = "" if self.low is None or self.high is None else number_range(self.low, self.high)
        return text if self.direction is None else f"{text} {self.direction.replace('_', ' ')}".strip()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML; `read_rows.row_from_dict` reads it back."""
        result = {field.name: getattr(self, field.name) for field in fields(self)}
        result |= {"choices": list(self.choices), "when": self.when.to_dict(), "source": asdict(self.source)}
        return result


def _overlap(one: tuple[float | None, float | None], two: tuple[float | None, float | None]) -> bool:
    low = max(bound for bound in (one[0], two[0], -math.inf) if bound is not None)
    high = min(bound for bound in (one[1], two[1], math.inf) if bound is not None)
    return low <= high
