"""The importance of each hyperparameter, as Optuna computes it, once there are trials enough to say it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from files_and_text.numbers import plural
from files_and_text.plain_values import finite
from results.stored_trials import search_trials

TRIALS_PER_HYPERPARAMETER = 10
"""Finished trials that each searched hyperparameter needs.

Measured on 60 random studies each, of a loss that depends on the rate far more than on the rest. With 10
trials for each of 4 or 6 hyperparameters the rate was first in all 60, and in nine of ten studies one that
does nothing had less than a fifth. With 20 trials in all the rate was first in 83% and 77%, and one that does
nothing had up to 41% and 45%.
"""
NEGLIGIBLE_SHARE = 0.05
"""A smaller share hardly mattered."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Share of each hyperparameter, largest first; they sum to 1. Empty with a reason where there is none."""

    shares: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    """Why there are no shares, in a sentence."""
    num_trials: int = 0

    @property
    def negligible(self) -> list[str]:
        """Dimensions that hardly mattered; none while there are too few trials to say so."""
        return [name for name, share in self.shares.items() if share < NEGLIGIBLE_SHARE]


def read_importance(study: optuna.Study) -> Importance:
    """Optuna's default evaluator (PED-ANOVA) on the finished trials.

    It is deterministic and supports conditional hyperparameters.
    """
    trials = search_trials(study, (TrialState.COMPLETE,))
    finished = [t for t in trials if t.values and finite(t.values[0]) is not None]
    searched = {name for t in trials for name, found in t.distributions.items() if not found.single()}
    needed = TRIALS_PER_HYPERPARAMETER * len(searched)
    count = len(finished)
    if not searched:
        return Importance(reason="No hyperparameter was searched.", num_trials=count)
    if count < needed:
        return Importance(
            reason=f"To say what mattered among {plural(len(searched), 'hyperparameter')} takes {needed} "
            f"finished trials; there {'is' if count == 1 else 'are'} {count}.",
            num_trials=count,
        )
    if len({t.values[0] for t in finished}) == 1:
        return Importance(reason="All finished trials have the same loss.", num_trials=count)
    try:
        with warnings.catch_warnings():
            # A single trial without warmup is such a regime, and weighs as little as one trial does.
            warnings.filterwarnings("ignore", message="Some regimes for parameter", category=UserWarning)
            shares = optuna.importance.get_param_importances(_of_search(study))
    except (ValueError, RuntimeError) as error:
        return Importance(reason=f"Optuna gives no importances: {error}", num_trials=count)
    usable = {name: float(share) for name, share in shares.items() if finite(float(share)) is not None}
    return Importance(
        shares=dict(sorted(usable.items(), key=lambda item: -item[1])),
        reason="" if usable else "Optuna gives no importances.",
        num_trials=count,
    )


def _of_search(study: optuna.Study) -> optuna.Study:
    """The study without its runs on new seeds: they would weigh two configurations several times."""
    trials = search_trials(study)
    if len(trials) == len(study.get_trials(deepcopy=False)):
        return study
    alone = optuna.create_study(directions=study.directions)
    alone.add_trials(trials)
    return alone
