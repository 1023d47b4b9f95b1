"""`sweeps replay` from the record of a trial to the comparison with what training it again gives."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from results.verdict.replicates import CONFIRM_SUFFIX
from sweeps.artifacts.run_folder import check_run_folder
from sweeps.config import SweepConfig, storage_url
from sweeps.confirm.set_aside import FOLDER
from sweeps.errors import ReplayError
from sweeps.replay.comparison import Replay, compare
from sweeps.replay.kept_checkpoints import kept_checkpoints
from sweeps.replay.train_again import train_again
from sweeps.replay.trial_record import TrialRecord, read_record
from sweeps.study.study import check_identity, peek, started_study, study_key_of

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

    `from_percent`: from a checkpoint that is kept there. Raises ReplayError, StudyMismatch where data or
    model have changed, and what `plan` raises. A trial recorded on a CPU is replayed on the CPU: a process
    that has not used CUDA yet will not see its GPUs any more.
    """
    check_run_folder(config)
    url = storage_url(config.storage, config.run_folder)
    study, run_folder = _study(config, url, of_confirmation)
    record = read_record(study, run_folder, number)
    if (record.device or "").startswith("CPU") and not _uses_cuda():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    identity = study.user_attrs["identity"]
    model = config.model.model_copy(update={"compute_dtype": identity["compute_dtype"]})
    blueprint = plan(config.model_copy(update={"model": model}))
    arms = {"arms": identity["arms"]} if "arms" in identity else {}
    check_identity(study, blueprint.study_spec.identity | arms)
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
            kept=kept_checkpoints(folder, record.config.max_steps),
            progress=progress,
        )
    return compare(record, found, study.user_attrs, package_versions())


def _study(config: SweepConfig, url: str, of_confirmation: bool) -> tuple[optuna.Study, Path]:
    if not of_confirmation:
        return started_study(url, config.name), config.run_folder
    if (study := peek(url, config.name + CONFIRM_SUFFIX)) is None:
        raise ReplayError(f"sweep {config.name!r} has no confirmation; `sweeps confirm` makes one")
    return study, config.run_folder / FOLDER


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
