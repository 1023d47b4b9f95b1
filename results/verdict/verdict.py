"""What a sweep says: its best trial, and for every guideline row where the best lies against it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import optuna

from files_and_text.plain_values import finite, plain
from results.errors import NothingToSay
from results.sweep_result import SweepResult, TrialResult, read_study
from results.verdict.caveats import caveats
from results.verdict.claims import claim
from results.verdict.comparisons import Weighed, weigh
from results.verdict.judge import judge
from results.verdict.metric_verdict import Measured, measured
from results.verdict.replicates import Replicates, read_replicates
from results.verdict.row_verdict import RowVerdict
from results.verdict.statistics import MARGIN, Comparison
from search_spaces import Dimension
from search_spaces.dimension import Value

FORMAT = 2
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
    margin: float = MARGIN
    """Share of the best's loss below which a difference does not matter."""
    replicates: Weighed | None = None
    """Arms run again on common seeds; None when none were."""
    measured: Measured | None = None
    """The sweep's metric; None where it has none."""

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

    @property
    def default_comparison(self) -> Comparison | None:
        """The guideline default against the best on common seeds; None without replicates of it."""
        if self.replicates is None:
            return None
        names = [arm.arm.name for arm in self.replicates.arms if arm.arm.role == "guideline_default"]
        return self.replicates.comparisons.get(names[0]) if names else None

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
                "margin": self.margin,
                "replicates": None if self.replicates is None else self.replicates.to_dict(),
                **({} if self.measured is None else {"measured": self.measured.to_dict()}),
                "outcomes": self.outcomes,
                "edges": [asdict(edge) for edge in self.edges],
                "caveats": self.caveats,
                "context": self.context,
                "rows": [row.to_dict() for row in self.rows],
            }
        )
        return result


def verdict(
    study: optuna.Study,
    replicates: optuna.Study | Replicates | None = None,
    *,
    margin: float | None = None,
) -> Verdict:
    """Judge every guideline row that the study names by its trials and, for words, by the confirm study's
    runs.

    `margin` is a share of the best's loss; None is the confirmation's own, or else the usual one.
    Works on unfinished studies too. Raises NothingToSay for a study without a single trial, InputError for
    rows in the study that are no guideline rows, DamagedReplicates for a confirm study that is none.
    """
    if isinstance(replicates, optuna.Study):
        # A confirmation that was planned and has not started says nothing yet.
        replicates = read_replicates(replicates) if replicates.get_trials(deepcopy=False) else None
    return judge_sweep(read_study(study), replicates, margin=margin)


def judge_sweep(
    sweep: SweepResult, replicates: Replicates | None = None, *, margin: float | None = None
) -> Verdict:
    """`verdict` for results from anywhere. Raises NothingToSay when there is no trial."""
    if margin is None:
        margin = MARGIN if replicates is None else replicates.margin
    if not sweep.started:
        raise NothingToSay(f"study {sweep.name!r} has no trial yet, so nothing can be said about it")
    best, default = sweep.best, sweep.guideline_default
    edges = [] if best is None else find_edges(best, sweep.dimensions)
    has_runs = replicates is not None and bool(replicates.runs)
    weighed = weigh(replicates, sweep.context, margin=margin) if replicates and has_runs else None
    sides = [(edge.dimension, edge.side) for edge in edges]
    return Verdict(
        study=sweep.name,
        metric="eval_loss",
        best=None if best is None else _summary(best),
        guideline_default=None if default is None else _summary(default),
        base_eval_loss=sweep.base_eval_loss,
        rows=[
            claim(judge(row, sweep), sweep, weighed, edges=sides, margin=margin) for row in sweep.guidelines
        ],
        edges=edges,
        outcomes=dict(sorted(Counter(trial.outcome for trial in sweep.trials).items())),
        context=dict(sweep.context),
        runs_per_config=1,
        caveats=caveats(sweep, [(e.dimension, e.side, e.value, e.end) for e in edges], weighed),
        margin=margin,
        replicates=weighed,
        measured=measured(sweep, replicates if has_runs else None),
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
