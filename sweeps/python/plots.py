"""The charts of a sweep as plotly figures, one method for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

    from results.answer.answer import Answer


class Plots:
    """`sweep.plot.learning_rate()` and others, each a `plotly.graph_objects.Figure`.

    Figures show the sweep as it is when they are asked for, and need no network. A method raises NothingToSay
    where there is too little to show.
    """

    def __init__(self, name: str, study: Callable[[], optuna.Study], answer: Callable[[], Answer]) -> None:
        """`name` of the sweep; `study` and `answer` are read for every figure."""
        self._name, self._study, self._answer = name, study, answer

    def learning_rate(self) -> Any:
        """Loss against learning rate, with the tables' values."""
        return self._figure("learning_rate")

    def curves(self) -> Any:
        """The evaluation losses of every trial over its budget."""
        return self._figure("curves")

    def embedding_ratio(self) -> Any:
        """Loss by learning rate and embedding rate; for sweeps that train embeddings."""
        return self._figure("embedding_ratio")

    def importance(self) -> Any:
        """How much of the difference in loss each hyperparameter explains."""
        return self._figure("importance")

    def parallel(self) -> Any:
        """All searched hyperparameters of every finished trial."""
        return self._figure("parallel")

    def timeline(self) -> Any:
        """Which trial was on which seat, and when."""
        return self._figure("timeline")

    def _figure(self, name: str) -> Any:
        from results.charts.figures import plot
        from results.hyperparameter_importance import read_importance
        from results.sweep_result import read_study

        study = self._study()
        return plot(name, read_study(study), self._answer(), read_importance(study))

    def __repr__(self) -> str:
        names = [name for name in vars(type(self)) if not name.startswith("_")]
        return f"Plots of {self._name!r}: {', '.join(f'{name}()' for name in names)}"
