"""A study, finished or running, as plain data.

Only `read_study` uses Optuna, so that a published table can be checked by the same rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from files_and_text.choices import SCHEDULERS_WITHOUT_WARMUP
from files_and_text.plain_values import finite, plain
from results.devices import devices_of
from results.stored_trials import (
    STAYS,
    by_percent,
    full_budget_loss,
    full_budget_metric,
    is_at_rest,
    is_replicate,
    sign_names,
)
from search_spaces import (
    DEFAULT_LABEL,
    MOVED_LABEL,
    Dimension,
    GuidelineRow,
    Guidelines,
    SearchSpace,
)
from search_spaces.dimension import Value
from search_spaces.rows import PARAMETERS

_HYPERPARAMETERS = (*PARAMETERS, "max_steps")


@dataclass(frozen=True, kw_only=True)
class Stay:
    """A time on one seat."""

    worker: int
    seat: int
    began: datetime | None = None
    """None: when the trial did."""
    left: datetime | None = None
    """None: when the trial ended."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One trial and its outcome."""

    number: int
    values: Mapping[str, Value]
    """Its hyperparameters by dimension name, and the derived ones that guideline rows speak of."""
    eval_loss: float | None
    """Nats per token at the full budget; None for every trial that did not get there with a finite value."""
    metric: float | None = None
    """The sweep's metric at the full budget, where there is one."""
    outcome: str
    """complete | pruned | frozen | diverged | out_of_memory | failed | running | waiting."""
    stop_reason: str = ""
    percent: int | None = None
    """Percent of its budget at the last report."""
    last_eval_loss: float | None = None
    """Loss of the last report; says nothing about the full budget."""
    curve: tuple[tuple[int, float], ...] = ()
    """(percent of its budget, finite loss) of every report, in order."""
    label: str = ""
    rows: tuple[str, ...] = ()
    """Guideline rows whose own values this trial takes."""
    signs: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Value] = field(default_factory=dict)
    folder: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    """In UTC without a time zone, as Optuna stores it."""
    worker: int | None = None
    seat: int | None = None
    """Where it ran last; None before it had a seat."""
    stays: tuple[Stay, ...] = ()
    """All its times on seats, if it was frozen."""
    is_at_rest: bool = False
    """Whether it is frozen in a sweep that has ended: it goes on only if `trials` is raised."""
    wall_seconds: float | None = None
    """Time on its seats, without the time between two runs of the sweep."""
    num_tokens: int | None = None
    num_steps: int | None = None
    """Optimizer steps when it ended or was frozen last."""
    seed: int | None = None
    """Of a run on a new seed; None for a trial of the search, whose seed is the sweep's."""
    generations: tuple[str, ...] = ()
    """What it wrote at its end for the prompts of the sweep's `base_samples`."""


@dataclass(frozen=True, kw_only=True)
class Unquantized:
    """The untouched base without quantization."""

    eval_loss: float | None
    """Nats per token; None where it was not measured."""
    reason: str = ""
    """Why not, as the end of a sentence."""


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """Everything a verdict is built from."""

    name: str
    metric: str
    trials: Sequence[TrialResult]
    replicates: Sequence[TrialResult] = ()
    """Runs of the best and the default on new seeds, in seats that were idle at the sweep's end."""
    dimensions: Mapping[str, Dimension]
    guidelines: Sequence[GuidelineRow]
    context: Mapping[str, Any]
    """What holds for every trial: model, size, method, budget, batch, alpha convention."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    base_eval_loss: float | None = None
    """Nats per token of the untouched base on the same evaluation set."""
    base_unquantized: Unquantized | None = None
    """The untouched base without quantization; None where the sweep does not measure it."""
    base_metric: float | None = None
    """The sweep's metric of the untouched base."""
    base_samples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Evaluation prompts, their answers, and the untouched base's generations; empty in older studies."""
    versions: Mapping[str, str] = field(default_factory=dict)
    compute_paths: Sequence[Mapping[str, Any]] = ()
    """How the workers computed: device, path, details and notes of each; several mix their rounding."""
    devices: Sequence[str] = ()
    """For people: `2 x NVIDIA H200`, `2 CPU cores`."""
    run_seconds: float | None = None
    """Time in which the sweep ran, over all of its runs; None in studies that do not hold it."""
    widened: Sequence[Mapping[str, Any]] = ()
    """Ends of ranges that the sweep moved by itself, because its best lay there: dimension, side, before,
    after, best (a trial), finished (trials then)."""
    is_exhausted: bool = False
    """Whether the search space was tried completely, with fewer trials than the sweep asks for."""

    @property
    def started(self) -> list[TrialResult]:
        """Trials that a worker has had; a waiting one is only proposed."""
        return [trial for trial in self.trials if trial.outcome != "waiting"]

    @property
    def finished(self) -> list[TrialResult]:
        """Trials with a finite loss at the full budget, best first, equal losses by number."""
        complete = [trial for trial in self.trials if trial.eval_loss is not None]
        return sorted(complete, key=lambda trial: (trial.eval_loss, trial.number))

    @property
    def best(self) -> TrialResult | None:
        """The trial with the lowest loss at the full budget, if any got there."""
        finished = self.finished
        return finished[0] if finished else None

    @property
    def best_by_metric(self) -> TrialResult | None:
        """The finished trial with the best metric, of equal ones that with the lowest loss."""
        spec = self.context.get("metric")
        measured = [trial for trial in self.finished if trial.metric is not None]
        if not isinstance(spec, Mapping) or not measured:
            return None
        sign = -1 if spec.get("direction") == "maximize" else 1
        return min(measured, key=lambda trial: sign * (trial.metric or 0.0))  # the first of equal ones

    @property
    def chosen(self) -> TrialResult | None:
        """The best by what the sweep searched by: the metric where that is its objective, else the loss."""
        spec = self.context.get("metric")
        by_metric = isinstance(spec, Mapping) and spec.get("objective")
        return self.best_by_metric if by_metric else self.best

    @property
    def guideline_default(self) -> TrialResult | None:
        """The trial of all the tables' own values at once; the finished one when there are several."""
        labelled = [trial for trial in self.trials if trial.label in (DEFAULT_LABEL, MOVED_LABEL)]
        return next((t for t in labelled if t.eval_loss is not None), labelled[-1] if labelled else None)


def read_study(study: optuna.Study) -> SweepResult:
    """Read everything a verdict needs from a study with the attributes that the keeper writes.

    Absent attributes read as empty. Raises InputError for invalid guideline rows or an invalid space; an
    unreadable storage is Optuna's own error.
    """
    attrs = study.user_attrs
    context = attrs.get("context") or {}
    dimensions = SearchSpace.from_dict(attrs["space"]).dimensions if attrs.get("space") else ()
    # Studies of earlier versions have no hash of the weights.
    weights = {"weights": attrs["base_weights"]} if attrs.get("base_weights") is not None else {}
    trials = [_trial(trial, context) for trial in study.get_trials(deepcopy=False)]
    return SweepResult(
        name=study.study_name,
        metric=str(attrs.get("metric", "eval_loss")),
        trials=[trial for trial in trials if trial.seed is None],
        replicates=[trial for trial in trials if trial.seed is not None],
        dimensions={dimension.name: dimension for dimension in dimensions},
        guidelines=list(Guidelines.from_list(attrs.get("guidelines") or []).values()),
        context=context,
        identity=(attrs.get("identity") or {}) | weights,
        base_eval_loss=finite(attrs.get("base_eval_loss")),
        base_unquantized=_unquantized(attrs.get("base_unquantized")),
        base_metric=finite(attrs.get("base_metric")),
        base_samples=attrs.get("base_samples") or {},
        versions=attrs.get("versions") or {},
        compute_paths=attrs.get("compute_paths") or (),
        devices=devices_of(attrs),
        run_seconds=finite(attrs.get("run_seconds")),
        widened=attrs.get("widened") or (),
        is_exhausted=bool(attrs.get("exhausted")),
    )


def _unquantized(found: Any) -> Unquantized | None:
    if not isinstance(found, Mapping):
        return None
    return Unquantized(eval_loss=finite(found.get("eval_loss")), reason=str(found.get("reason") or ""))


def study_hash(study: optuna.Study) -> str:
    """16 hex digits over what the study searched and every finished trial: the same trials, the same hash."""
    attrs = study.user_attrs
    finished = [
        {
            "number": trial.number,
            "state": trial.state.name,
            "params": trial.params,
            "value": trial.values,
            "reports": {str(step): value for step, value in trial.intermediate_values.items()},
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    ]
    content = {"identity": attrs.get("identity"), "space": attrs.get("space"), "trials": finished}
    text = json.dumps(plain(content), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hyperparameters(
    params: Mapping[str, Value], config: Mapping[str, Any], context: Mapping[str, Any]
) -> dict[str, Value]:
    """Sampled parameters and what follows from them: warmup steps and share, embedding rate and ratio.

    Sources in order: the sampled parameters, the trial's config, the sweep's context. Warmup is absent with
    a scheduler that ignores it.
    """
    values: dict[str, Value] = {}
    for source in (context, config):
        values |= {name: source[name] for name in _HYPERPARAMETERS if source.get(name) is not None}
    values |= params
    rate, embedding = finite(values.get("learning_rate")), finite(values.get("embedding_learning_rate"))
    ratio = finite(values.get("embedding_lr_ratio"))
    if embedding is None and rate is not None and ratio is not None:
        values["embedding_learning_rate"] = embedding = rate * ratio
    if rate and embedding is not None:
        values.setdefault("embedding_lr_ratio", embedding / rate)
    if values.get("lr_scheduler_type") in SCHEDULERS_WITHOUT_WARMUP:
        values.pop("warmup_steps", None)
        values.pop("warmup_ratio", None)
    steps, total = finite(values.get("warmup_steps")), finite(values.get("max_steps"))
    if steps is not None and total:
        values.setdefault("warmup_ratio", steps / total)
    return values


def _trial(trial: FrozenTrial, context: Mapping[str, Any]) -> TrialResult:
    attrs = trial.user_attrs
    config = attrs.get("config") or {}
    losses = by_percent(trial)
    percent = max(losses, default=None)
    by_state = "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
    return TrialResult(
        number=trial.number,
        values=hyperparameters(trial.params, config, context),
        eval_loss=full_budget_loss(trial),
        metric=full_budget_metric(trial),
        outcome=str(attrs.get("outcome") or by_state),
        stop_reason=str(attrs.get("stop_reason") or ""),
        percent=percent,
        last_eval_loss=None if percent is None else finite(losses[percent]),
        curve=tuple((at, value) for at, found in losses.items() if (value := finite(found)) is not None),
        label=str(attrs.get("label") or ""),
        rows=tuple(attrs.get("rows") or ()),
        signs=sign_names(attrs),
        config=config,
        params=dict(trial.params),
        folder=str(attrs.get("folder") or ""),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
        worker=attrs.get("worker"),
        seat=attrs.get("seat"),
        stays=tuple(_stay(*stay) for stay in attrs.get(STAYS) or ()),
        is_at_rest=is_at_rest(trial),
        wall_seconds=finite(attrs.get("wall_seconds")),
        num_tokens=attrs.get("num_tokens"),
        num_steps=attrs.get("num_steps"),
        seed=attrs.get("seed") if is_replicate(trial) else None,
        generations=tuple(attrs.get("generations") or ()),
    )


def _stay(worker: int, seat: int, began: str | None, left: str | None) -> Stay:
    times = [None if time is None else datetime.fromisoformat(time) for time in (began, left)]
    return Stay(worker=worker, seat=seat, began=times[0], left=times[1])
