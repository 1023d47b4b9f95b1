"""What the model of learning curves reads of a study: each trial's values and all of its reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.trial import TrialState

from search_spaces.dimension import Value

FROZEN = "frozen"
"""User attribute of a trial that was frozen: the percent of its budget; None once it was taken up again."""
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
    """The trials of a study that were drawn and did not fail, in their order."""
    curves = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (TrialState.WAITING, TrialState.FAIL) or not trial.params:
            continue
        reports = {p: v for p, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)}
        state: Literal["running", "frozen", "ended", "broken"] = "ended"
        if trial.state == TrialState.RUNNING:
            state = "running" if trial.user_attrs.get(FROZEN) is None else "frozen"
        elif trial.user_attrs.get("outcome") in _BROKEN or not reports:
            state = "broken"
        curves.append(Curve(number=trial.number, params=trial.params, reports=reports, state=state))
    return curves
