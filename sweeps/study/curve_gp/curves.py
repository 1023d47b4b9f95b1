"""What the model of learning curves reads of a study: each trial's values and all of its reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.trial import TrialState

from results.stored_trials import is_frozen, search_trials
from search_spaces.dimension import Value

_BROKEN = ("diverged", "out_of_memory")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A trial as the model sees it."""

    number: int
    params: Mapping[str, Value]
    """Of the active dimensions."""
    reports: Mapping[int, float]
    """Percent of the budget -> what the study minimizes: the loss, or the metric's cost. Finite."""
    state: Literal["running", "frozen", "ended", "broken"] = "ended"
    """running: on a seat, drawn, or interrupted; broken: diverged or did not fit, and can never win."""

    @property
    def percent(self) -> int:
        """Of its last report; 0 before the first."""
        return max(self.reports, default=0)

    @property
    def is_complete(self) -> bool:
        return self.percent == 100 and self.state == "ended"


def curves_of(study: optuna.Study) -> list[Curve]:
    """The trials of the search that were drawn and did not fail, in their order."""
    curves = []
    for trial in search_trials(study):
        if trial.state in (TrialState.WAITING, TrialState.FAIL) or not trial.params:
            continue
        reports = {p: v for p, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)}
        state: Literal["running", "frozen", "ended", "broken"] = "ended"
        if trial.state == TrialState.RUNNING:
            state = "frozen" if is_frozen(trial) else "running"
        elif trial.user_attrs.get("outcome") in _BROKEN or not reports:
            state = "broken"
        curves.append(Curve(number=trial.number, params=trial.params, reports=reports, state=state))
    return curves
