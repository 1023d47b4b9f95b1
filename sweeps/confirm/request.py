"""What the user asked to confirm, and the budget."""

from __future__ import annotations

from dataclasses import dataclass

from results.comparison.constants import MOST_MARGIN
from sweeps.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ConfirmRequest:
    """The options of `sweeps confirm`; ConfigError for impossible values."""

    best: int = 1
    """How many of the sweep's best trials."""
    rows: bool = True
    """Whether guideline rows, and one rate for LoRA and embeddings, are tried besides the guideline
    default."""
    trials: int | None = None
    """Runs of the whole confirmation, those that tune one rate included."""
    hours: float | None = None
    """Hours after which this call starts no new run; running ones are finished."""
    margin: float
    """Largest difference that counts as none, a share of the best's loss."""

    def __post_init__(self) -> None:
        problems = []
        if self.best < 1:
            problems.append(f"--best is at least 1; got {self.best}")
        if self.trials is not None and self.trials < 1:
            problems.append(f"--trials is at least 1; got {self.trials}")
        if self.hours is not None and not self.hours > 0:
            problems.append(f"--hours is above 0; got {self.hours:g}")
        if not 0 < self.margin <= MOST_MARGIN:
            problems.append(
                f"the margin is above 0 and at most {100 * MOST_MARGIN:g} percent of the loss; got "
                f"{100 * self.margin:g}"
            )
        if problems:
            raise ConfigError(problems)
