"""Weights & Biases: one run per ended trial, grouped by sweep."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from files_and_text.atomic_files import atomic_write_json
from sweeps.tracking.trial_record import TrialRecord

FOLDER = "wandb"
STATE = "tracked-by-wandb.json"


def to_wandb(
    records: Sequence[TrialRecord],
    run_folder: Path,
    *,
    project: str,
    entity: str | None = None,
    mode: str | None = None,
) -> int:
    """Log the trials that have ended since the last call; returns their number.

    A trial is logged once, after its end, because an offline run cannot be reopened. The run folder records
    what has been logged. A run that was cut short is logged again: offline from the beginning, online under
    the same id, where W&B ignores steps that it already has.
    """
    mode = mode or os.environ.get("WANDB_MODE") or "online"
    state_file = run_folder / STATE
    logged: dict[str, str] = json.loads(state_file.read_text("utf-8")) if state_file.is_file() else {}
    destination = f"{mode}/{entity or ''}/{project}"
    new = [record for record in records if record.is_over and f"{destination}/{record.key}" not in logged]
    if not new:
        return 0
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    (run_folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for record in new:
        for cut_short in (run_folder / FOLDER).glob(f"offline-run-*-{record.key}"):
            if mode == "offline":
                shutil.rmtree(cut_short)
        _log(wandb, record, run_folder, project=project, entity=entity, mode=mode)
        logged[f"{destination}/{record.key}"] = record.name
        atomic_write_json(state_file, logged)
    return len(new)


def _log(
    wandb: Any, record: TrialRecord, run_folder: Path, *, project: str, entity: str | None, mode: str
) -> None:
    run = wandb.init(
        project=project,
        entity=entity,
        group=record.sweep,
        job_type="trial",
        id=record.key,
        name=f"{record.sweep}-{record.name}",
        config=dict(record.params),
        tags=list(record.labels),
        notes=f"{record.outcome}: {record.reason}",
        dir=str(run_folder),
        mode=mode,
        # Offline there is nothing to resume, and asking for it causes a warning.
        resume="allow" if mode == "online" else None,
        reinit="finish_previous",
        settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, save_code=False),
    )
    try:
        for point in record.points:
            by_percent = {f"by_percent/{name}": value for name, value in point.values.items()}
            run.log({**point.values, **by_percent, "percent": point.percent}, step=point.step)
        run.define_metric("percent")
        run.define_metric("by_percent/*", step_metric="percent")
        run.summary.update({f"final/{name}": value for name, value in record.final.items()})
        run.summary.update({f"trial/{name}": value for name, value in record.tags.items()})
        run.summary.update({"trial/number": record.number, "trial/started": record.started})
    finally:
        run.finish(exit_code=0 if record.outcome in ("complete", "pruned") else 1)
