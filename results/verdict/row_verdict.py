"""The verdict on one guideline row: what single runs measured, and the word that replicates decide."""

from __future__ import annotations

from dataclasses import dataclass

from results.comparison.paired import Comparison
from results.verdict.band import Band
from results.verdict.measure import Measurement
from results.words.words import Word
from search_spaces import GuidelineRow


@dataclass(frozen=True, kw_only=True)
class RowVerdict:
    """What one sweep says about one row, in numbers and codes; `results.text` makes sentences of it."""

    row: GuidelineRow
    measurement: Measurement
    word: Word
    """What replicates show; `undecided` at best without them."""
    comparison: Comparison | None = None
    """The arm that tests the row against the best, on common seeds; None without replicates."""
    by_default: bool = False
    """Whether that arm is the guideline default, which differs from the best in other hyperparameters too."""
    by_trial: int | None = None
    """The sweep's trial that the arm is, where it is one with settings of its own, not the default."""
    differs_in: tuple[str, ...] = ()
    """Other searched hyperparameters in which that trial is not the best."""
    band: Band | None = None
    """Values of the row's parameter within the margin of the best, by the sweep's own trials."""
    edge: str = ""
    """low | high: the best lies at that end of what was searched, so widen it; "" elsewhere."""

    @property
    def is_tested(self) -> bool:
        """Whether the sweep says anything about the row."""
        return self.measurement.is_tested or self.word != "not_tested"
