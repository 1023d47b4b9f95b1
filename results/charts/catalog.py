"""All charts of a sweep, by the names that pages and Python use."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from results.answer.answer import Answer
from results.charts.builders.curves import curves_chart
from results.charts.builders.embedding_ratio import embedding_ratio_chart
from results.charts.builders.importance import importance_chart
from results.charts.builders.learning_rate import learning_rate_chart
from results.charts.builders.parallel import parallel_chart
from results.charts.builders.timeline import timeline_chart
from results.charts.chart import Chart
from results.hyperparameter_importance import Importance
from results.sweep_result import SweepResult

BUILDERS: Mapping[str, Callable[[SweepResult, Answer, Importance], Chart | None]] = {
    "learning_rate": lambda sweep, answer, _: learning_rate_chart(sweep, answer),
    "curves": lambda sweep, answer, _: curves_chart(sweep, answer),
    "embedding_ratio": lambda sweep, answer, _: embedding_ratio_chart(sweep, answer),
    "importance": lambda _sweep, _answer, importance: importance_chart(importance),
    "parallel": lambda sweep, answer, _: parallel_chart(sweep, answer),
    "timeline": lambda sweep, answer, _: timeline_chart(sweep, answer),
}
"""Name -> builder, in the order of a page; None where there is nothing to show."""
