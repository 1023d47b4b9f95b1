"""`sweeps replay` from the record of a trial to the comparison with what training it again gives."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from results.verdict.replicates import CONFIRM_FOLDER, CONFIRM_SUFFIX
from sweeps.config import SweepConfig, storage_url
from sweeps.config.url_passwords import masked
from sweeps.errors import ReplayError, StudyMismatch
from sweeps.replay.comparison import Replay, compare
from sweeps.replay.kept_checkpoints import kept_checkpoints
from sweeps.replay.train_again import train_again
from sweeps.replay.trial_record import TrialRecord, read_record
from sweeps.study.base_check import BASE_WEIGHTS
from sweeps.study.study import identity_differences, peek, started_study, study_key_of

if TYPE_CHECKING:
    from sweeps.plan.blueprint import Blueprint


def replay_trial(
    config: SweepConfig,
    plan: Callable[[SweepConfig], Blueprint],
    number: int,
    *,
    from_percent: int | None = None,
    of_confirmation: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Replay:
    """Train trial `number` again, alone, and compare it with its record. Writes nothing into the run folder.

    `from_percent`: from a checkpoint that is kept there. Paths of model, data and output may have
    changed since the trial was trained. Raises ReplayError, StudyMismatch where weights, data or settings
    have, and what `plan` raises. A trial recorded on a CPU is replayed on the CPU: a process that has not
    used CUDA yet will not see its GPUs any more.
    """
    url = storage_url(config.storage, config.run_folder)
    study, run_folder = _study(config, url, of_confirmation)
    record = read_record(study, run_folder, number)
    if from_percent is not None and from_percent >= record.percents[-1]:
        raise ReplayError(
            f"--from must be below {record.percents[-1]}, the percent of the budget at trial {number}'s last "
            f"report; got {from_percent}"
        )
    if (record.device or "").startswith("CPU") and not _uses_cuda():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    identity = study.user_attrs["identity"]
    model = config.model.model_copy(update={"compute_dtype": identity["compute_dtype"]})
    blueprint = plan(config.model_copy(update={"model": model}))
    _check_identity(study, number, blueprint.study_spec.identity)
    from sweeps.plan.study_identity import package_versions

    with tempfile.TemporaryDirectory(prefix="sweeps-replay-") as name:
        folder = (
            _checkpoints(record, blueprint, study, Path(name)) if from_percent is not None else Path(name)
        )
        found = train_again(
            record,
            blueprint.worker_spec,
            study.user_attrs,
            from_percent=from_percent,
            kept=kept_checkpoints(folder, record.config.max_steps, _store(config)),
            progress=progress,
        )
    return compare(record, found, study.user_attrs, package_versions())


def _study(config: SweepConfig, url: str, of_confirmation: bool) -> tuple[optuna.Study, Path]:
    if not of_confirmation:
        return started_study(url, config.name), config.run_folder
    if (study := peek(url, config.name + CONFIRM_SUFFIX)) is None:
        raise ReplayError(f"sweep {config.name!r} has no confirmation; `sweeps confirm` makes one")
    return study, config.run_folder / CONFIRM_FOLDER


def _check_identity(study: optuna.Study, number: int, identity: Mapping[str, Any]) -> None:
    """StudyMismatch unless data, weights and settings are what they were; digests decide, not names."""
    theirs, has_digest = study.user_attrs["identity"], study.user_attrs.get(BASE_WEIGHTS) is not None
    ours = {**identity, **({"arms": theirs["arms"]} if "arms" in theirs else {})}
    if has_digest:
        # The digest of weights that are only read when the base is loaded is compared then.
        where = {name: theirs["model"][name] for name in ("name", "revision") if name in theirs["model"]}
        ours["model"] = {**identity["model"], **where}
    if not (differing := identity_differences(study, ours)):
        return
    rule = "Paths may have changed, what they hold must be the same."
    if not has_digest:
        rule = "The study has no digest of its base's weights, so its model must have the same name."
    raise StudyMismatch(
        f"trial {number} of {study.study_name!r} cannot be replayed, because these are not what they were:\n"
        + "\n".join(f"  {line}" for line in differing)
        + f"\n{rule} Undo the change, or say what was used by --set KEY=VALUE, such as --set model.name=PATH"
    )


def _store(config: SweepConfig) -> str | None:
    url = config.reliability.checkpoints
    return None if url is None else masked(url)


def _checkpoints(record: TrialRecord, blueprint: Blueprint, study: optuna.Study, scratch: Path) -> Path:
    """A folder with the trial's checkpoints: its own, or a copy of what the checkpoint store has."""
    store = blueprint.study_spec.checkpoint_store()
    if store is None:
        return record.folder
    try:
        store.of_study(study_key_of(study)).load(record.number, scratch)
    except Exception as error:  # each file system has errors of its own
        raise ReplayError(f"the checkpoints of trial {record.number} cannot be read: {error}") from error
    return scratch


def _uses_cuda() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
