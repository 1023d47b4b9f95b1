"""A trial's folder in the run folder, as the keeper sees it."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

from optuna.trial import FrozenTrial

from lora_runner.messages import SeatReport

_WORK = ("checkpoint", "adapter", "reports.jsonl", "result.json")


def trial_folder(number: int) -> str:
    """`trials/0007`, relative to the run folder."""
    return f"trials/{number:04d}"


def result_in(run_folder: Path, trial: FrozenTrial) -> SeatReport | None:
    """The last report of a trial that ended unheard by the study; None when there is none of its config."""
    path = run_folder / trial.user_attrs["folder"] / "result.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("config_hash") != trial.user_attrs["config_hash"]:
            return None
        report = SeatReport.from_dict(values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return report if report.number == trial.number and report.is_end else None


def drop_checkpoint(run_folder: Path, number: int) -> None:
    """Remove what an ended trial would have gone on from; with trained embeddings that is gigabytes each."""
    for name in ("checkpoint", "checkpoint.previous"):
        shutil.rmtree(run_folder / trial_folder(number) / name, ignore_errors=True)


def move_aside(folder: Path) -> Path | None:
    """Rename the folder of a trial just drawn when it holds another trial's work; returns its new place.

    That happens when the study was deleted and the run folder was not. A new trial must not go on from there.
    """
    if not any((folder / name).exists() for name in _WORK):
        return None
    places = (folder.with_name(f"{folder.name}.earlier-{n}") for n in itertools.count(1))
    place = next(place for place in places if not place.exists())
    return folder.rename(place)
