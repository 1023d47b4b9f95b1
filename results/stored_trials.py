"""Losses, metrics and stability signs of one trial as Optuna stores it."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from files_and_text.plain_values import finite

REPLICATE = "replicate"
"""The `origin` of a run on a new seed in the sweep's own study: no trial of the search."""
MEASURED = "measured:"
"""Attributes of a trial, by percent of its budget, that hold loss and metric where there is a metric."""

FROZEN = "frozen"
"""User attribute of a trial that was stopped early and may be taken up again: the percent of its budget; None
once it was. Also the `outcome` of the trial until then."""

AT_REST = "at_rest"
"""User attribute of a frozen trial whose sweep has ended: it goes on only if `trials` is raised."""

STAYS = "stays"
"""User attribute of a trial that was frozen: its stays on seats, each as [worker, seat, began, left]. Times
are as Optuna's, in ISO format; None for the first beginning, which is the trial's, and until it has left."""


def is_frozen(trial: FrozenTrial) -> bool:
    """Whether a trial was stopped early, kept its checkpoint, and may be taken up again."""
    return trial.state == TrialState.RUNNING and trial.user_attrs.get(FROZEN) is not None


def is_at_rest(trial: FrozenTrial) -> bool:
    """Whether a trial is frozen in a sweep that has ended: it goes on only if `trials` is raised."""
    return is_frozen(trial) and bool(trial.user_attrs.get(AT_REST))


def is_replicate(trial: FrozenTrial) -> bool:
    """Whether this is a run of a known configuration on a new seed, and not a trial of the search."""
    return trial.user_attrs.get("origin") == REPLICATE


def search_trials(study: optuna.Study, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
    """The trials of the search itself, by number."""
    trials = study.get_trials(deepcopy=False, states=states)
    return [trial for trial in trials if not is_replicate(trial)]


ENDED = "ended"
"""Attribute of a replicate: how many runs had ended before it."""


def full_budget_loss(trial: FrozenTrial) -> float | None:
    """The loss of a trial that is complete by every record of it, else None; nats per token.

    Some tools store an early-stopped trial as COMPLETE with its truncated value; Optuna gives a pruned one
    its last report as value, and accepts an infinite value as COMPLETE. None of these may be the best or a
    cost.
    """
    attrs = trial.user_attrs
    if trial.state != TrialState.COMPLETE or attrs.get("outcome", "complete") != "complete":
        return None
    done, budget = finite(attrs.get("num_steps")), finite((attrs.get("config") or {}).get("max_steps"))
    if done is not None and budget is not None and done < budget:
        return None
    if "metric" in attrs:  # the study may minimise the metric
        return finite(attrs.get("eval_loss"))
    return finite(trial.values[0]) if trial.values else None


def rank(trial: FrozenTrial) -> tuple[float, float, int]:
    """Sort key of complete trials, best first: the study's value, then the loss, then the number.

    A metric that counts answers is equal in many trials; all commands must name the same one of them.
    """
    loss = full_budget_loss(trial)
    return trial.value or 0.0, math.inf if loss is None else loss, trial.number


def full_budget_metric(trial: FrozenTrial) -> float | None:
    """The metric of a trial that used its full budget with a finite loss; None for every other."""
    return None if full_budget_loss(trial) is None else finite(trial.user_attrs.get("metric"))


def by_percent(trial: FrozenTrial, name: str = "eval_loss") -> dict[int, float | None]:
    """Percent of the budget -> the loss or the `metric` that a trial reported there, in rising order."""
    attrs = trial.user_attrs
    both = {int(key.removeprefix(MEASURED)): attrs[key] for key in attrs if key.startswith(MEASURED)}
    if both:
        return {percent: both[percent].get(name) for percent in sorted(both)}
    return dict(sorted(trial.intermediate_values.items())) if name == "eval_loss" else {}


def sign_names(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the stability signs in a trial's attributes, each once, in order of appearance."""
    signs = attrs.get("signs") or ()
    return tuple(dict.fromkeys(str(sign["sign"]) for sign in signs))
