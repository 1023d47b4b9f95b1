"""What a sweep says: its best trial, and for every guideline row where the best lies against it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import optuna

from results.errors import NothingToSay
from results.judge import judge
from results.plain import finite, loss, number, plain, plural
from results.row_verdict import RowVerdict
from results.sweep_result import SweepResult, TrialResult, read_study
from search_spaces import MOVED_LABEL, Dimension
from search_spaces.dimension import Value

FORMAT = 1
"""Of verdict.json; rises when a field changes its meaning."""

EDGE_SHARE = 0.05
"""A best value is at the edge when it is this close to an end, as a share of the searched range."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The best value lies at an end of what was searched: the real best may lie beyond."""

    dimension: str
    side: Literal["low", "high"]
    value: float
    end: float


@dataclass(frozen=True, kw_only=True)
class TrialSummary:
    """One trial as the head of a verdict names it."""

    number: int
    outcome: str
    eval_loss: float | None
    """Nats per token at the full budget."""
    values: Mapping[str, Value]
    label: str
    stop_reason: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer of one sweep; losses in nats per token."""

    study: str
    metric: str
    best: TrialSummary | None
    """None when no trial finished its full budget with a finite loss."""
    guideline_default: TrialSummary | None
    """The trial of all the tables' own values at once, whatever became of it."""
    base_eval_loss: float | None
    rows: Sequence[RowVerdict]
    edges: Sequence[Edge]
    outcomes: Mapping[str, int]
    """Outcome -> number of trials."""
    context: Mapping[str, Any]
    runs_per_config: int
    caveats: Sequence[str]
    """What keeps this verdict from being more than it is, the most important first."""

    @property
    def gain_over_base(self) -> float | None:
        """Loss of the untouched base minus the best's; positive when training helped."""
        return _difference(self.base_eval_loss, self.best)

    @property
    def gain_over_default(self) -> float | None:
        """Loss of the guideline default minus the best's; None unless both finished."""
        return _difference(
            None if self.guideline_default is None else self.guideline_default.eval_loss, self.best
        )

    def to_dict(self) -> dict[str, Any]:
        """Builtins only, for verdict.json."""
        result: dict[str, Any] = plain(
            {
                "format": FORMAT,
                "study": self.study,
                "metric": self.metric,
                "best": None if self.best is None else asdict(self.best),
                "guideline_default": None
                if self.guideline_default is None
                else asdict(self.guideline_default),
                "base_eval_loss": self.base_eval_loss,
                "gain_over_base": self.gain_over_base,
                "gain_over_default": self.gain_over_default,
                "runs_per_config": self.runs_per_config,
                "outcomes": self.outcomes,
                "edges": [asdict(edge) for edge in self.edges],
                "caveats": self.caveats,
                "context": self.context,
                "rows": [row.to_dict() for row in self.rows],
            }
        )
        return result


def verdict(study: optuna.Study) -> Verdict:
    """Judge every guideline row that the study names by its trials.

    Works on unfinished studies too. Raises NothingToSay for a study without a single trial, InputError for
    rows in the study that are no guideline rows.
    """
    return judge_sweep(read_study(study))


def judge_sweep(sweep: SweepResult) -> Verdict:
    """`verdict` for results from anywhere. Raises NothingToSay when there is no trial."""
    if not sweep.started:
        raise NothingToSay(f"study {sweep.name!r} has no trial yet, so nothing can be said about it")
    best, default = sweep.best, sweep.guideline_default
    edges = [] if best is None else find_edges(best, sweep.dimensions)
    return Verdict(
        study=sweep.name,
        metric=sweep.metric,
        best=None if best is None else _summary(best),
        guideline_default=None if default is None else _summary(default),
        base_eval_loss=sweep.base_eval_loss,
        rows=[judge(row, sweep) for row in sweep.guidelines],
        edges=edges,
        outcomes=dict(sorted(Counter(trial.outcome for trial in sweep.trials).items())),
        context=dict(sweep.context),
        runs_per_config=1,
        caveats=_caveats(sweep, edges),
    )


def find_edges(best: TrialResult, dimensions: Mapping[str, Dimension]) -> list[Edge]:
    """Searched ranges at whose end the best value lies; nothing lies beyond a low end of 0."""
    edges = []
    for name, dimension in dimensions.items():
        value, low, high = finite(best.values.get(name)), dimension.low, dimension.high
        if value is None or low is None or high is None or dimension.fixed:
            continue
        share = _share(value, low, high, dimension.log)
        if share <= EDGE_SHARE and low > 0:
            edges.append(Edge(dimension=name, side="low", value=value, end=low))
        elif share >= 1 - EDGE_SHARE:
            edges.append(Edge(dimension=name, side="high", value=value, end=high))
    return edges


def _share(value: float, low: float, high: float, log: bool) -> float:
    if log and min(value, low) > 0:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _summary(trial: TrialResult) -> TrialSummary:
    return TrialSummary(
        number=trial.number,
        outcome=trial.outcome,
        eval_loss=trial.eval_loss,
        values=dict(trial.values),
        label=trial.label,
        stop_reason=trial.stop_reason,
    )


def _difference(other: float | None, best: TrialSummary | None) -> float | None:
    return None if other is None or best is None or best.eval_loss is None else other - best.eval_loss


def _caveats(sweep: SweepResult, edges: Sequence[Edge]) -> list[str]:
    best, default = sweep.best, sweep.guideline_default
    found = []
    if best is None:
        found.append(
            "No trial finished its full budget with a finite loss: there is no best config and no cost "
            "of a row."
        )
    else:
        found.append(
            "One run per config: how much of a difference is noise between seeds cannot be said yet. "
            "Nothing here is a claim until the best and the guideline default are run again on other seeds."
        )
        found.append(
            f"The best is the lowest of {plural(len(sweep.finished), 'finished trial')}: the lowest of "
            "several noisy losses "
            "is lower than the same config would give again."
        )
    if (
        best is not None
        and sweep.base_eval_loss is not None
        and (best.eval_loss or 0) >= sweep.base_eval_loss
    ):
        found.append(
            f"The best trial ({loss(best.eval_loss)}) is no better than the untouched base "
            f"({loss(sweep.base_eval_loss)})."
        )
    found.extend(
        f"The best {edge.dimension}, {number(edge.value)}, lies at the {edge.side} end of what was searched "
        f"({number(edge.end)}): widen the range and search again."
        for edge in edges
    )
    if default is None:
        found.append(
            "No trial took the tables' own values all at once, so there is no guideline default to "
            "compare with."
        )
    elif default.label == MOVED_LABEL:
        found.append(
            f"The guideline default, trial {default.number}, is not quite the tables' own: the user's ranges "
            "leave some of their values out."
        )
    if default is not None and default.eval_loss is None:
        found.append(f"The guideline default, trial {default.number}, did not finish ({default.outcome}).")
    if unfinished := sum(trial.outcome in ("running", "waiting") for trial in sweep.trials):
        found.append(f"{plural(unfinished, 'trial')} not finished: this can still change.")
    doubtful = [
        trial.number for trial in sweep.trials if trial.outcome == "complete" and trial.eval_loss is None
    ]
    if doubtful:
        found.append(
            "Stored as complete but left out, for want of a finite loss at the full budget: "
            f"{plural(len(doubtful), 'trial')} "
            f"({', '.join(map(str, doubtful))})."
        )
    if not sweep.guidelines:
        found.append("The study names no guideline rows, so none is judged.")
    return found
