"""The judgement on one guideline row: where the best lies against it, and what its own value cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from files_and_text.plain_values import plain
from results.verdict.band import Band
from results.verdict.row_conditions import Condition
from results.verdict.statistics import Comparison
from results.verdict.words import Word
from search_spaces import GuidelineRow
from search_spaces.dimension import Value

Position = Literal["inside", "below", "above", "outside", "not_tested"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The loss of a trial that took the row's value against the best, both at the full budget."""

    trial: int
    eval_loss: float
    """Nats per token."""
    difference: float
    """eval_loss minus the best trial's; never below 0."""
    percent: float | None
    """Of the best trial's loss; None where that is not above 0."""
    own_value: bool
    """Whether the trial was run to measure this row, or only happens to lie inside it."""
    differs_in: tuple[str, ...]
    """Other searched dimensions in which the trial differs from the best: they share the difference."""


@dataclass(frozen=True, kw_only=True)
class RowVerdict:
    """What one sweep says about one row; numbers are None where nothing was measured."""

    row: GuidelineRow
    position: Position
    """Where the best value lies: inside | below | above the row's range, outside its choices, or not_tested.

    For a boundary row the range is its one value. For a stability row it is where the trials that showed
    the sign lie in the row's parameter against the trials that did not (by medians).
    """
    reason: str = ""
    """Why the row is not tested."""
    best_value: Value | None = None
    best_trial: int | None = None
    distance_log10: float | None = None
    """From the nearest end of the row's range to the best value, never negative; 0 inside."""
    centre_offset_log10: float | None = None
    """From the geometric centre of the row's range to the best value; positive when the best is higher."""
    cost: Cost | None = None
    evidence: str = "not measured"
    """Which trial measured the row's value."""
    stopped: tuple[str, ...] = ()
    """Trials of the row's value that ended early, a sentence each; never a cost."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Counts and medians behind a boundary or stability row."""
    claim: str = ""
    """The description by one run per config, in words."""
    verdict: Word = "not_tested"
    """What replicates let one claim; `undecided` at best without them."""
    comparison: Comparison | None = None
    """The arm that tests the row against the best, on common seeds; None without replicates."""
    band: Band | None = None
    """Values of the row's parameter within the margin of the best, by the sweep's own trials."""
    edge: str = ""
    """low | high: the best lies at that end of what was searched, so widen it; "" elsewhere."""
    conditions: tuple[Condition, ...] = ()
    conditions_statement: str = ""
    """Where the row's conditions and the sweep's differ, and what the row leaves open."""

    @property
    def is_tested(self) -> bool:
        """Whether the sweep says anything about the row."""
        return self.position != "not_tested" or self.verdict != "not_tested"

    @property
    def widen(self) -> bool:
        """Whether the search should go on beyond its end in the row's parameter."""
        return bool(self.edge)

    def to_dict(self) -> dict[str, Any]:
        """Builtins only, the row's own fields first."""
        own = {name: getattr(self, name) for name in _OWN_FIELDS}
        cost = None if self.cost is None else asdict(self.cost)
        evidence = {
            "cost": cost,
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "band": None if self.band is None else self.band.to_dict(),
            "widen": self.widen,
            "conditions": [asdict(condition) for condition in self.conditions],
        }
        result: dict[str, Any] = plain(self.row.to_dict() | own | evidence)
        return result


_OWN_FIELDS = (
    "verdict",
    "edge",
    "conditions_statement",
    "position",
    "reason",
    "best_value",
    "best_trial",
    "distance_log10",
    "centre_offset_log10",
    "evidence",
    "stopped",
    "details",
    "claim",
)
