"""The replicates of a sweep, read from its confirm study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from files_and_text.nearest_name import nearest
from results.comparison.arms import ROLES, Arm, Replicate
from results.comparison.constants import MARGIN, MIN_PAIRS, MOST_MARGIN, MOST_SEEDS
from results.errors import DamagedReplicates
from results.stored_trials import ENDED, full_budget_loss, full_budget_metric

CONFIRM_SUFFIX = ".confirm"
"""The confirm study of sweep `name` is named `name` + this, in the same storage."""
CONFIRM_FOLDER = "confirm"
"""Its folder in the sweep's run folder."""


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Arms and their runs; the first arm of role `best` is the reference."""

    arms: Sequence[Arm]
    runs: Sequence[Replicate]
    """In the order in which they ended."""
    margin: float = MARGIN
    """At which the confirmation stops: a share of the best's loss."""
    most_seeds: int = MOST_SEEDS
    """Seeds per arm for which the study was designed when it began."""


def read_replicates(study: optuna.Study) -> Replicates:
    """Arms and runs of a confirm study; waiting and running ones are left out.

    Of several runs of an arm on one seed the comparisons take the first that is not missing. Raises
    DamagedReplicates when the study names no arms, no best among them, runs of an unknown arm, or an invalid
    margin or design.
    """
    name = study.study_name
    arms = [_arm(entry, name) for entry in study.user_attrs.get("arms") or []]
    if not any(arm.role == "best" for arm in arms):
        raise DamagedReplicates(
            f"study {name!r} is not a confirm study: its `arms` have none of the role best"
        )
    names = [arm.name for arm in arms]
    if len(set(names)) != len(names):
        raise DamagedReplicates(f"the arms of study {name!r} need different names; got {names}")
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    runs = [_run(trial, names, name) for trial in sorted(ended, key=_end)]
    return Replicates(arms=arms, runs=runs, margin=margin_of(study), most_seeds=_most_seeds(study))


def _end(trial: FrozenTrial) -> tuple[int, float, int]:
    """Sort key: the order in which runs ended. Those of earlier versions do not hold it, and come first."""
    when = trial.datetime_complete
    order = trial.user_attrs.get(ENDED)
    return (
        order if isinstance(order, int) else -1,
        0.0 if when is None else when.timestamp(),
        trial.number,
    )


def _most_seeds(study: optuna.Study) -> int:
    """The design of the study; the default where it has none, as studies of earlier versions."""
    found = study.user_attrs.get("most_seeds", MOST_SEEDS)
    if not isinstance(found, int) or not MIN_PAIRS <= found <= 10_000:
        raise DamagedReplicates(
            f"`most_seeds` of study {study.study_name!r} is a whole number from {MIN_PAIRS} to 10000; "
            f"got {found!r}"
        )
    return found


def margin_of(study: optuna.Study | None) -> float:
    """The margin of a confirm study; the default where there is no study yet."""
    margin = MARGIN if study is None else study.user_attrs.get("margin", MARGIN)
    if study is not None and (not isinstance(margin, float) or not 0 < margin <= MOST_MARGIN):
        raise DamagedReplicates(
            f"the margin of study {study.study_name!r} must be above 0 and at most {MOST_MARGIN:g}; "
            f"got {margin!r}"
        )
    return float(margin)


def _arm(entry: Any, study: str) -> Arm:
    if not isinstance(entry, Mapping) or not {"name", "role", "values"} <= entry.keys():
        raise DamagedReplicates(f"an arm of study {study!r} needs a name, a role and values; got {entry!r}")
    if entry["role"] not in ROLES:
        raise DamagedReplicates(
            f"arm {entry['name']!r} of study {study!r} has the unknown role {entry['role']!r}."
            f"{nearest(entry['role'], ROLES)}"
        )
    return Arm(
        name=str(entry["name"]),
        role=entry["role"],
        values=dict(entry["values"]),
        rows=tuple(entry.get("rows") or ()),
    )


def _run(trial: FrozenTrial, names: Sequence[str], study: str) -> Replicate:
    arm, seed = trial.user_attrs.get("arm"), trial.user_attrs.get("seed")
    if arm not in names or not isinstance(seed, int):
        raise DamagedReplicates(
            f"trial {trial.number} of study {study!r} needs a known arm and a seed; got {arm!r} and {seed!r}"
        )
    return Replicate(
        arm=str(arm),
        seed=seed,
        eval_loss=full_budget_loss(trial),
        metric=full_budget_metric(trial),
        outcome=str(trial.user_attrs.get("outcome") or _OUTCOMES[trial.state]),
        folder=f"{CONFIRM_FOLDER}/{trial.user_attrs['folder']}" if trial.user_attrs.get("folder") else "",
    )


_OUTCOMES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "diverged", TrialState.FAIL: "failed"}
