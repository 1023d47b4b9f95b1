"""A confirmation drawn up: which runs, under which study, and whether they may go on from what is there.

A confirm study is run by the same keeper and workers as the sweep's own; only what is drawn differs. It holds
nothing but the runs of its arms. One rate for LoRA and embeddings is tuned before, in a study of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from files_and_text.numbers import number, plural
from results.sweep_result import SweepResult
from results.trial_facts import full_budget_loss
from results.verdict.replicates import CONFIRM_SUFFIX
from results.verdict.statistics import MIN_PAIRS, MOST_MARGIN, Arm
from sweeps.confirm.arms import choose_arms, pick_rate, rates_to_try, space_with
from sweeps.errors import ConfigError, StudyMismatch
from sweeps.keeper.replicate_source import is_settled
from sweeps.plan.replicate_plan import ReplicatePlan, new_seeds
from sweeps.plan.specs import StudySpec
from sweeps.study.status import read_status

ONE_RATE_SUFFIX = f"{CONFIRM_SUFFIX}.one-rate"
CONFIRM_STUDIES = (CONFIRM_SUFFIX, ONE_RATE_SUFFIX)
"""Endings of the studies that a confirmation makes beside the sweep's own."""
FOLDER = "confirm"
MOST_SEEDS = 8
"""Without a budget; every further look widens the intervals."""
MOST_SEEDS_IN_TIME = 32
"""Within a budget in hours."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be confirmed, and what it may cost; ConfigError for values that no confirmation can have."""

    best: int = 1
    """Of the sweep's best trials."""
    rows: bool = True
    """Whether guideline rows, and one rate for all, are tried besides the guideline default."""
    trials: int | None = None
    """Runs of the whole confirmation, tuning included."""
    hours: float | None = None
    """Of this call; runs under way at its end go on to theirs."""
    margin: float

    def __post_init__(self) -> None:
        problems = []
        if self.best < 1:
            problems.append(f"--best is at least 1; got {self.best}")
        if self.trials is not None and self.trials < 1:
            problems.append(f"--trials is at least 1; got {self.trials}")
        if self.hours is not None and not self.hours > 0:
            problems.append(f"--hours is above 0; got {self.hours:g}")
        if not 0 < self.margin <= MOST_MARGIN:
            problems.append(
                f"the margin is above 0 and at most {100 * MOST_MARGIN:g} percent of the loss; got "
                f"{100 * self.margin:g}"
            )
        if problems:
            raise ConfigError(problems)


def tuning_study_spec(study_spec: StudySpec, sweep: SweepResult, asked: Asked) -> StudySpec | None:
    """The runs that find the best rate for LoRA and embeddings alike; None when that is not asked.

    On the sweep's own seed: no replicate may have a say in what is compared.
    """
    candidates = rates_to_try(sweep) if asked.rows else ()
    if not candidates:
        return None
    plan = ReplicatePlan(arms=candidates, seeds=(int(study_spec.constants["seed"]),), stops_early=False)
    return _study_spec(study_spec, plan, suffix=ONE_RATE_SUFFIX, folder=f"{FOLDER}/one-rate")


def tuned_rate(study: optuna.Study, plan: ReplicatePlan) -> tuple[Arm | None, str]:
    """The best of the rates that were tried, and what to say about it."""
    losses = {
        str(trial.user_attrs["arm"]): loss
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if (loss := full_budget_loss(trial)) is not None
    }
    rates = ", ".join(number(float(arm.values["learning_rate"])) for arm in plan.arms)
    chosen = pick_rate(plan.arms, losses)
    if chosen is None:
        return None, f"One rate for LoRA and embeddings is no arm: it finished at none of {rates}."
    place = [arm.name for arm in plan.arms].index(chosen.name)
    edge = ", an end of what was tried" if place in (0, len(plan.arms) - 1) else ""
    rate = number(float(chosen.values["learning_rate"]))
    return chosen, (
        f"One rate for LoRA and embeddings was tried at {rates} with everything else at the best, a run "
        f"each; {rate} was best{edge}."
    )


def confirm_study_spec(
    study_spec: StudySpec, sweep: SweepResult, asked: Asked, one_rate: Arm | None, tuned: int
) -> StudySpec:
    """The confirm study's own ledger; `tuned` runs of the budget are spent already."""
    arms = choose_arms(sweep, study_spec, best=asked.best, rows=asked.rows, one_rate=one_rate)
    if asked.best > len(sweep.finished):
        raise ConfigError(
            [f"--best is at most {len(sweep.finished)}, the sweep's finished trials; got {asked.best}"]
        )
    seeds = MOST_SEEDS if asked.hours is None else MOST_SEEDS_IN_TIME
    if asked.trials is not None:
        seeds = (asked.trials - tuned) // len(arms)
        if seeds < MIN_PAIRS:
            least = tuned + MIN_PAIRS * len(arms)
            spent = f" after {plural(tuned, 'run')} that tune one rate" if tuned else ""
            raise ConfigError(
                [
                    f"--trials is at least {least}: {plural(len(arms), 'arm')} on {MIN_PAIRS} "
                    f"seeds{spent}; got {asked.trials}. --no-rows leaves only the guideline default beside "
                    "the best"
                ]
            )
    plan = ReplicatePlan(
        arms=arms, seeds=new_seeds(int(study_spec.constants["seed"]), seeds), margin=asked.margin
    )
    return _study_spec(study_spec, plan, suffix=CONFIRM_SUFFIX, folder=FOLDER)


def check_same(study: optuna.Study | None, study_spec: StudySpec) -> None:
    """StudyMismatch when a confirm study has other arms than would be chosen now."""
    if study is None or study_spec.replicates is None:
        return
    theirs, ours = _by_name(study.user_attrs.get("arms")), _by_name(study_spec.replicates.described())
    if theirs == ours:
        return
    best = [f"its best is {_shown(theirs.get('best'))}, the sweep's {_shown(ours['best'])}"]
    changed = [name for name in ours if name in theirs and theirs[name] != ours[name] and name != "best"]
    said = [
        *(best if "best" in ours and theirs.get("best") != ours["best"] else ()),
        *_listed("it has no arm", [name for name in ours if name not in theirs]),
        *_listed("it has the arm", [name for name in theirs if name not in ours]),
        *_listed("another is meant by", changed),
    ]
    raise StudyMismatch(
        f"the study {study.study_name!r} confirms something else: {'; '.join(said)}. Ask for the same "
        "--best and --rows again, or start over with --anew, which keeps the old runs under another name"
    )


def has_work(study: optuna.Study | None, study_spec: StudySpec) -> bool:
    """Whether anything is left to run."""
    plan = study_spec.replicates
    assert plan is not None
    if study is None:
        return True
    status = read_status(study, plan.size)
    if status.states.get("RUNNING", 0):
        return True
    return status.finished < plan.size and not is_settled(study, plan)


def _study_spec(study_spec: StudySpec, plan: ReplicatePlan, *, suffix: str, folder: str) -> StudySpec:
    return replace(
        study_spec,
        name=f"{study_spec.name}{suffix}",
        run_folder=str(Path(study_spec.run_folder) / folder),
        space=space_with(study_spec.space, plan.arms),
        trials=plan.size,
        search=study_spec.search
        | {"sampler": "random", "pruner": "none", "pruner_options": {}, "timeout_seconds": None},
        identity=study_spec.identity | {"arms": plan.described()},
        # Nobody asks for the adapter of a replicate.
        reliability=study_spec.reliability.model_copy(update={"keep_adapters": 1}),
        replicates=plan,
    )


def _by_name(arms: Any) -> dict[str, Mapping[str, Any]]:
    return {str(arm["name"]): arm for arm in arms or []}


def _shown(arm: Mapping[str, Any] | None) -> str:
    if arm is None:
        return "none"
    values = (f"{k} {number(v) if isinstance(v, float) else v}" for k, v in arm["values"].items())
    return f"({', '.join(values)})"


def _listed(words: str, names: list[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(repr(name) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{words} {shown}{more}"]
