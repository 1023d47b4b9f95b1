"""The importance of each hyperparameter, as Optuna computes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from files_and_text.numbers import plural
from files_and_text.plain_values import finite

MIN_TRIALS = 10
"""With fewer finished trials the shares would be chance."""
RELIABLE_TRIALS = 30
"""With fewer finished trials the shares are only a hint, and no dimension is called negligible."""
NEGLIGIBLE_SHARE = 0.05
"""A smaller share hardly mattered."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Share of each hyperparameter, largest first; they sum to 1. Empty with a reason where there is none."""

    shares: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    """Why there are no shares."""
    num_trials: int = 0

    @property
    def is_reliable(self) -> bool:
        return self.num_trials >= RELIABLE_TRIALS

    @property
    def negligible(self) -> list[str]:
        """Dimensions that hardly mattered; none while there are too few trials to say so."""
        return (
            [name for name, share in self.shares.items() if share < NEGLIGIBLE_SHARE]
            if self.is_reliable
            else []
        )


def read_importance(study: optuna.Study) -> Importance:
    """Optuna's default evaluator (PED-ANOVA) on the finished trials.

    It is deterministic and supports conditional hyperparameters.
    """
    losses = [
        loss
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.values and (loss := finite(trial.values[0])) is not None
    ]
    if len(losses) < MIN_TRIALS:
        return Importance(
            reason=f"{plural(len(losses), 'finished trial')}; below {MIN_TRIALS} the shares would be chance",
            num_trials=len(losses),
        )
    if min(losses) == max(losses):
        return Importance(reason="all finished trials have the same loss", num_trials=len(losses))
    try:
        shares = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError) as error:
        return Importance(reason=f"Optuna gives none: {error}", num_trials=len(losses))
    usable = {name: float(share) for name, share in shares.items() if finite(float(share)) is not None}
    return Importance(
        shares=dict(sorted(usable.items(), key=lambda item: -item[1])),
        reason="" if usable else "no hyperparameter was searched",
        num_trials=len(losses),
    )
