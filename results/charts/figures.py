"""The charts of a sweep as plotly figures, by name."""

from __future__ import annotations

from typing import Any

from results.answer.answer import Answer
from results.charts.catalog import BUILDERS
from results.charts.plotly_figure import figure
from results.errors import NothingToSay
from results.hyperparameter_importance import Importance
from results.sweep_result import SweepResult

_NEEDS = {
    "learning_rate": "a finished trial, and trials of at least two learning rates",
    "curves": "a trial that was evaluated",
    "embedding_ratio": "a finished trial, and trials of at least two embedding ratios",
    "parallel": "three finished trials, and at least two searched hyperparameters",
    "timeline": "a trial that had a seat",
}


def plot(name: str, sweep: SweepResult, answer: Answer, importance: Importance) -> Any:
    """The plotly figure of one chart, by its name in `catalog.BUILDERS`.

    Raises NothingToSay where the sweep has nothing to show in it.
    """
    chart = BUILDERS[name](sweep, answer, importance)
    if chart is None:
        raise NothingToSay(importance.reason if name == "importance" else f"this plot needs {_NEEDS[name]}.")
    return figure(chart)
