"""The studies of a confirmation as the keeper runs them, and whether a present one can be continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from files_and_text.numbers import plural, value_text
from results.allocation.expected import expected_costs
from results.allocation.row_needs import RowNeeds
from results.comparison.arms import Arm
from results.comparison.constants import MIN_PAIRS, MOST_SEEDS
from results.sweep_result import SweepResult
from results.verdict.replicates import CONFIRM_FOLDER, CONFIRM_SUFFIX
from sweeps.confirm.arms import choose_arms, space_with
from sweeps.confirm.budget import budget_for, fitting_arms, present_arms
from sweeps.confirm.one_rate import as_arm, rates_to_try
from sweeps.confirm.request import ConfirmRequest
from sweeps.confirm.set_aside import ONE_RATE_SUFFIX
from sweeps.errors import ConfigError, StudyMismatch
from sweeps.keeper.sources.replicate_source import has_next_run
from sweeps.plan.replicate_plan import KnownRun, ReplicatePlan, new_seeds
from sweeps.plan.specs import StudySpec
from sweeps.study.read_status import read_status

MAX_SEEDS_IN_TIME = 32
"""With a budget in hours, and the most that thresholds are designed for."""


Stored = Sequence[Mapping[str, Any]] | None
"""The arms of a present confirm study."""


def tuning_study_spec(
    study_spec: StudySpec, sweep: SweepResult, request: ConfirmRequest, stored: Stored = None
) -> StudySpec | None:
    """The runs that tune one rate for LoRA and embeddings; None when that is not asked for, or when the
    budget has no runs for that arm.

    On the sweep's own seed: runs on the new seeds are kept for the comparison.
    """
    candidates = rates_to_try(sweep) if request.rows else ()
    if not candidates:
        return None
    arms = _arms(study_spec, sweep, request, as_arm(candidates[0]), len(candidates), stored)
    if not any(arm.role == "one_rate" for arm in arms):
        return None
    plan = ReplicatePlan(arms=candidates, seeds=(int(study_spec.constants["seed"]),), stops_early=False)
    return _study_spec(study_spec, plan, suffix=ONE_RATE_SUFFIX, folder=f"{CONFIRM_FOLDER}/one-rate")


def confirm_study_spec(
    study_spec: StudySpec,
    sweep: SweepResult,
    request: ConfirmRequest,
    one_rate: Arm | None,
    num_tuned: int,
    stored: Stored = None,
) -> StudySpec:
    """The confirm study; `num_tuned` runs of the budget are spent already, `stored` are the arms of a present
    one."""
    arms = _arms(study_spec, sweep, request, one_rate, num_tuned, stored)
    if request.best > len(sweep.finished):
        raise ConfigError(
            [f"--best is at most {len(sweep.finished)}, the sweep's finished trials; got {request.best}"]
        )
    runs, most_seeds = None, MOST_SEEDS
    seeds = MOST_SEEDS if request.hours is None else MAX_SEEDS_IN_TIME
    if (budget := budget_for(arms, request.trials, hours=request.hours, rows=request.rows)) is not None:
        runs = (
            budget - num_tuned
            if request.trials is not None
            else max(budget - num_tuned, MIN_PAIRS * len(arms))
        )
        each = runs // len(arms)
        if each < MIN_PAIRS:
            least = num_tuned + MIN_PAIRS * len(arms)
            spent = f" after {plural(num_tuned, 'run')} that tune one rate" if num_tuned else ""
            raise ConfigError(
                [
                    f"--trials is at least {least}: {plural(len(arms), 'configuration')} on {MIN_PAIRS} "
                    f"seeds{spent}; got {request.trials}. --no-rows leaves only the guideline default beside "
                    "the best"
                ]
            )
        # The last arm that is open shares what is left with the best.
        most_seeds, seeds = seeds_of_design(each, rows=request.rows), runs // 2
    plan = ReplicatePlan(
        arms=arms,
        seeds=new_seeds(int(study_spec.constants["seed"]), seeds),
        runs=runs,
        most_seeds=most_seeds,
        known=_known_runs(sweep, arms),
        needs=RowNeeds(sweep, expected_costs(sweep, arms), margin=request.margin) if request.rows else None,
        margin=request.margin,
    )
    return _study_spec(study_spec, plan, suffix=CONFIRM_SUFFIX, folder=CONFIRM_FOLDER)


def seeds_of_design(each: int, *, rows: bool) -> int:
    """The seeds for which the thresholds are made where a budget gives each arm so many.

    More than these: open arms get the runs of decided ones, and a row's arms may get far more than a share.
    """
    most = min(each + each // 5, MAX_SEEDS_IN_TIME)
    return max(most, min(MOST_SEEDS, 2 * each)) if rows else most


def _arms(
    study_spec: StudySpec,
    sweep: SweepResult,
    request: ConfirmRequest,
    one_rate: Arm | None,
    num_tuned: int,
    stored: Stored,
) -> tuple[Arm, ...]:
    arms = choose_arms(sweep, study_spec, best=request.best, rows=request.rows, one_rate=one_rate)
    budget = budget_for(arms, request.trials, hours=request.hours, rows=request.rows)
    return present_arms(arms, stored, rows=request.rows) or fitting_arms(
        arms, None if budget is None else budget - num_tuned, sweep, margin=request.margin
    )


def _known_runs(sweep: SweepResult, arms: Sequence[Arm]) -> tuple[KnownRun, ...]:
    """Runs on new seeds that the sweep itself made, of configurations that are arms now."""
    ended = [run for run in sweep.replicates if run.eval_loss is not None and run.ended is not None]
    return tuple(
        KnownRun(
            arm=arm.name,
            seed=int(run.seed or 0),
            eval_loss=float(run.eval_loss or 0.0),
            metric=run.metric,
            config=run.config,
            folder=run.folder,
        )
        for run in sorted(ended, key=lambda run: str(run.ended))
        for arm in arms
        if dict(arm.values) == dict(run.params)
    )


def check_same_arms(study: optuna.Study | None, study_spec: StudySpec) -> None:
    """StudyMismatch when a present confirm study has other arms than would be chosen now."""
    if study is None or study_spec.replicates is None:
        return
    theirs, ours = _by_name(study.user_attrs.get("arms")), _by_name(study_spec.replicates.described())
    if theirs == ours:
        return
    best = [f"its best is {_values(theirs.get('best'))}, the sweep's is {_values(ours['best'])}"]
    changed = [name for name in ours if name in theirs and theirs[name] != ours[name] and name != "best"]
    differences = [
        *(best if "best" in ours and theirs.get("best") != ours["best"] else ()),
        *_listed("it lacks", [name for name in ours if name not in theirs]),
        *_listed("it also has", [name for name in theirs if name not in ours]),
        *_listed("it has other values for", changed),
    ]
    raise StudyMismatch(
        f"the study {study.study_name!r} confirms other configurations: {'; '.join(differences)}. Use the "
        "same --best and --rows as before, or start over with --anew, which keeps the old runs under another "
        "name"
    )


def has_work(study: optuna.Study | None, study_spec: StudySpec) -> bool:
    """Whether runs are left to do."""
    plan = study_spec.replicates
    assert plan is not None
    if study is None:
        return True
    status = read_status(study, plan.size)
    if status.unfinished:
        return True
    return status.finished < plan.size and has_next_run(study, plan)


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
        # The adapters of replicates are not used.
        reliability=study_spec.reliability.model_copy(update={"keep_adapters": 1}),
        measure_unquantized=False,
        replicates=plan,
    )


def _by_name(arms: Any) -> dict[str, Mapping[str, Any]]:
    return {str(arm["name"]): arm for arm in arms or []}


def _values(arm: Mapping[str, Any] | None) -> str:
    if arm is None:
        return "none"
    values = (f"{k} {value_text(v)}" for k, v in arm["values"].items())
    return f"({', '.join(values)})"


def _listed(words: str, names: list[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(repr(name) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{words} {shown}{more}"]
