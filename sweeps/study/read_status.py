"""The state of a sweep, counted from its study; works for a sweep that runs elsewhere or has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from files_and_text.plain_values import finite
from results.devices import devices_of
from results.parameter_order import in_order
from results.stored_trials import (
    by_percent,
    full_budget_loss,
    is_at_rest,
    is_frozen,
    is_replicate,
    rank,
    search_trials,
)
from results.sweep_result import hyperparameters
from search_spaces import DEFAULT_LABEL, MOVED_LABEL
from search_spaces.dimension import Value
from sweeps.study.compute_paths import COMPUTE_PATHS
from sweeps.study.edges.widening import widenings_of
from sweeps.study.lease import Lease, lease_of
from sweeps.study.status import AT_REST, FROZEN, PAUSED, ArmProgress, Leader, RunningTrial, Status
from sweeps.study.study import COUNTED_STATES, is_prefetched

RUN_SECONDS = "run_seconds"
"""User attribute of a study: the time in which the sweep ran, over all of its runs."""
SILENT_SECONDS = 30.0
"""A sweep on another machine that has given no sign of life for this long counts as ended."""


def is_default(trial: FrozenTrial) -> bool:
    """Whether a trial is the guideline default, with which every verdict compares."""
    return trial.user_attrs.get("label") in (DEFAULT_LABEL, MOVED_LABEL)


def read_status(study: optuna.Study, target: int) -> Status:
    """What a study holds: counts, best and guideline default, and whether a process works on it."""
    attributes = study.user_attrs
    lease = lease_of(study)
    is_live = lease is not None and is_alive(lease)
    context = attributes.get("context") or {}
    status = Status(
        study.study_name,
        target,
        task="confirm" if "arms" in attributes else "run",
        base_eval_loss=attributes.get("base_eval_loss"),
        base_unquantized_loss=(attributes.get("base_unquantized") or {}).get("eval_loss"),
        base_metric=attributes.get("base_metric"),
        seat_busy_share=attributes.get("seat_busy_share"),
        run_seconds=finite(attributes.get(RUN_SECONDS)),
        is_live=is_live,
        ended_at=None if lease is None or is_live else datetime.fromtimestamp(lease.seen, UTC),
        compute_paths=[
            {name: value for name, value in path.items() if name != "certificate"}
            for path in attributes.get(COMPUTE_PATHS) or []
        ],
    )
    status.devices = list(devices_of(attributes))
    status.widened = [str(widening) for widening in widenings_of(study)]
    metric = context.get("metric") or {}
    status.metric, status.is_objective = metric.get("name"), bool(metric.get("objective"))
    trials = study.get_trials(deepcopy=False)
    complete = []
    for trial in trials:
        state = _state(trial, is_live=is_live)
        if is_replicate(trial):
            if state == TrialState.RUNNING.name:
                status.running.append(_running_trial(trial, context, is_live=is_live))
            continue
        status.states[state] = status.states.get(state, 0) + 1
        status.num_put_back += bool(trial.user_attrs.get("put_back"))
        has_ended = trial.state.is_finished() or state == AT_REST
        if has_ended and (outcome := trial.user_attrs.get("outcome")):
            status.outcomes[outcome] = status.outcomes.get(outcome, 0) + 1
        if state in (PAUSED, TrialState.RUNNING.name):
            status.running.append(_running_trial(trial, context, is_live=is_live))
        if state in (FROZEN, AT_REST):
            status.frozen_trials.append(_frozen_trial(trial, context))
        if (loss := full_budget_loss(trial)) is not None:
            complete.append(trial)
            if is_default(trial):
                status.default_loss = loss
    if status.task == "confirm":
        status.arms = _arms(attributes["arms"], trials)
        status.best, status.leader = None, None
    elif complete:
        best = min(complete, key=rank)
        status.best = {
            "number": best.number,
            "eval_loss": full_budget_loss(best),
            "params": dict(best.params),
            "values": searched_values(best, context),
        }
        if metric:
            status.best["metric"] = best.user_attrs.get("metric")
        status.leader = Leader(number=best.number, eval_loss=full_budget_loss(best), percent=100)
    else:
        status.leader = _leader(trials)
    return status


def is_alive(lease: Lease) -> bool:
    """Whether the lease's holder works on the study, as far as can be told from here."""
    if lease.released:
        return False
    alive = lease.owner.is_alive
    return time.time() - lease.seen < SILENT_SECONDS if alive is None else alive


def used_shares(study: optuna.Study) -> list[float]:
    """The share (0..1) of its budget that each trial used that has ended, or is frozen, and did not fail."""
    return [
        min(1.0, steps / budget)
        for trial in search_trials(study)
        if (trial.state in COUNTED_STATES or is_frozen(trial))
        and (steps := finite(trial.user_attrs.get("num_steps")))
        and (budget := finite((trial.user_attrs.get("config") or {}).get("max_steps")))
    ]


def never_pruned(study: optuna.Study) -> list[int]:
    """Numbers of the trials that always use their whole budget."""
    trials = study.get_trials(deepcopy=False)
    return [trial.number for trial in trials if is_default(trial) or is_replicate(trial)]


def searched_values(trial: FrozenTrial, context: Mapping[str, Any]) -> dict[str, Value]:
    """A trial's searched hyperparameters in the order in which they are spoken of; no unused warmup.

    The embeddings' learning rate stands in for its ratio to the main one, as in the answer.
    """
    values = hyperparameters(trial.params, trial.user_attrs.get("config") or {}, context)
    names = set(trial.params)
    if "embedding_lr_ratio" in names and "embedding_learning_rate" in values:
        names = (names - {"embedding_lr_ratio"}) | {"embedding_learning_rate"}
    return {name: values[name] for name in in_order(list(names)) if name in values}


def _state(trial: FrozenTrial, *, is_live: bool) -> str:
    if is_prefetched(trial):
        return TrialState.WAITING.name
    if is_frozen(trial):
        return AT_REST if is_at_rest(trial) else FROZEN
    return PAUSED if trial.state == TrialState.RUNNING and not is_live else trial.state.name


def _running_trial(trial: FrozenTrial, context: Mapping[str, Any], *, is_live: bool) -> RunningTrial:
    losses = by_percent(trial)
    percent = max(losses, default=0)
    return RunningTrial(
        number=trial.number,
        worker=trial.user_attrs.get("worker"),
        seat=trial.user_attrs.get("seat"),
        state="training" if is_live else "paused",
        percent=percent,
        max_steps=(trial.user_attrs.get("config") or {}).get("max_steps"),
        eval_loss=losses.get(percent),
        values=_values(trial, context),
    )


def _frozen_trial(trial: FrozenTrial, context: Mapping[str, Any]) -> RunningTrial:
    return replace(
        _running_trial(trial, context, is_live=True),
        state="at_rest" if is_at_rest(trial) else "frozen",
        worker=None,
        seat=None,
        step=trial.user_attrs.get("num_steps"),
    )


def _values(trial: FrozenTrial, context: Mapping[str, Any]) -> dict[str, Value]:
    if (arm := trial.user_attrs.get("arm")) is not None:
        return {"configuration": str(arm), "seed": trial.user_attrs.get("seed", 0)}
    return searched_values(trial, context)


def _arms(described: Any, trials: Sequence[FrozenTrial]) -> list[ArmProgress]:
    found = []
    for name in [str(arm.get("name")) for arm in described if isinstance(arm, Mapping)]:
        runs = [trial for trial in trials if trial.user_attrs.get("arm") == name]
        losses = [loss for run in runs if (loss := full_budget_loss(run)) is not None]
        started = [run for run in runs if run.state == TrialState.RUNNING and not is_prefetched(run)]
        found.append(
            ArmProgress(
                name=name,
                finished=len(losses),
                ended_early=sum(run.state.is_finished() for run in runs) - len(losses),
                running=len(started),
                eval_loss=sum(losses) / len(losses) if losses else None,
            )
        )
    return found


def _leader(trials: list[FrozenTrial]) -> Leader | None:
    reports = [
        (-percent, loss, trial.number)
        for trial in trials
        if trial.state != TrialState.FAIL
        for percent, loss in by_percent(trial).items()
        if finite(loss) is not None
    ]
    if not reports:
        return None
    percent, loss, number = min(reports)
    return Leader(number=number, eval_loss=loss, percent=-percent)
