"""A guideline row: one table cell or rule of a document, with its condition and its source."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from files_and_text.numbers import number_range
from files_and_text.plain_values import plain

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
# Quantities of the documents that a dimension is derived from.
DERIVED_NAMES = ("embedding_learning_rate", "warmup_steps")
PARAMETERS = DIMENSION_NAMES + DERIVED_NAMES
DIRECTIONS = ("too_high", "too_low")

# "8B" is a name: Llama 3.1 8B has 8.03e9 parameters, Llama 2 7B has 6.74e9, Llama 3.2 3B has 3.21e9.
NOMINAL_SIZE_TOLERANCE = 0.10


@dataclass(frozen=True, kw_only=True)
class Source:
    """The document that a row comes from."""

    document: str
    section: str = ""
    url: str = ""
    """What the document refers to; "" for none."""

    def __str__(self) -> str:
        return f"{self.document}, {self.section}" if self.section else self.document


@dataclass(frozen=True, kw_only=True)
class When:
    """The runs that a row applies to; a field that is None does not limit them. Bounds are inclusive."""

    scenario: str | None = None
    method: str | None = None
    """"qlora" (adapters on a 4-bit base; the documents' "LoRA" is counted here) or "full"."""
    model_size_billions_low: float | None = None
    model_size_billions_high: float | None = None
    max_steps_low: int | None = None
    max_steps_high: int | None = None
    train_embeddings: bool | None = None

    @property
    def limits_steps(self) -> bool:
        """Whether the row applies only to some numbers of steps."""
        return self.max_steps_low is not None or self.max_steps_high is not None

    @property
    def limits_size(self) -> bool:
        """Whether the row applies only to some model sizes."""
        return self.model_size_billions_low is not None or self.model_size_billions_high is not None

    def size_distance(self, model_size: float) -> float:
        """Distance in natural log from a number of parameters to the row's sizes; 0 within 10% of them."""
        billions = model_size / 1e9
        tolerance = math.log1p(NOMINAL_SIZE_TOLERANCE)
        below = above = 0.0
        if self.model_size_billions_low is not None:
            below = math.log(self.model_size_billions_low / billions)
        if self.model_size_billions_high is not None:
            above = math.log(billions / self.model_size_billions_high)
        distance = max(below, above, 0.0)
        return 0.0 if distance <= tolerance else distance

    def includes_steps(self, max_steps: int) -> bool:
        """Whether a number of optimizer steps is within the row's bounds."""
        low, high = self.max_steps_low, self.max_steps_high
        return (low is None or max_steps >= low) and (high is None or max_steps <= high)

    def includes_scenario(self, scenario: str, max_steps: int) -> bool:
        """Whether the row applies to runs of this scenario and length.

        The row of the scenario that the user names applies to any number of steps. One that the table defines
        by a number of steps ("Short Training (<100 steps)") applies to every run of that length too.
        """
        if self.scenario is not None and (self.scenario == scenario or not self.limits_steps):
            return self.scenario == scenario
        return self.includes_steps(max_steps)

    def applies_to(
        self, *, scenario: str, model_size: float | None, max_steps: int, method: str, train_embeddings: bool
    ) -> bool:
        """Whether the row applies to such a run (`model_size` in parameters; None: of any size)."""
        return (
            self.includes_scenario(scenario, max_steps)
            and self.method in (None, method)
            and self.train_embeddings in (None, train_embeddings)
            and (model_size is None or self.size_distance(model_size) == 0.0)
        )

    def overlaps(self, other: When) -> bool:
        """Whether both can apply to one run."""
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
        """The fields that are not None, nested as in the YAML files."""
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
    parameter: str | None = None
    """One of PARAMETERS; None when the row is about no hyperparameter."""
    low: float | None = None
    high: float | None = None
    """Equal to `low` for a single value; both None when the row gives no number."""
    choices: tuple[str, ...] = ()
    """Scheduler names, the preferred one first."""
    direction: str | None = None
    """Of a warning: "too_high" or "too_low" for a learning rate that does not work; else None."""
    condition: str = ""
    """When the row applies, in the document's own words."""
    when: When = When()
    source: Source
    note: str = ""

    @property
    def value_text(self) -> str:
        """The number, range or names that it gives, with "too high" in a warning; "" for none."""
        if self.choices:
            return " or ".join(self.choices)
        text = "" if self.low is None or self.high is None else number_range(self.low, self.high)
        return text if self.direction is None else f"{text} {self.direction.replace('_', ' ')}".strip()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML; `read_rows.row_from_dict` reads it back."""
        data: dict[str, Any] = plain(asdict(self)) | {"when": self.when.to_dict()}
        return data


def _overlap(one: tuple[float | None, float | None], two: tuple[float | None, float | None]) -> bool:
    low = max(bound for bound in (one[0], two[0], -math.inf) if bound is not None)
    high = min(bound for bound in (one[1], two[1], math.inf) if bound is not None)
    return low <= high
