"""A trial's folder in the run folder: reading reports and results back, and removing what is left over."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from files_and_text.atomic_files import atomic_write, remove_temporaries
from files_and_text.trial_paths import (
    ADAPTER,
    CHECKPOINT,
    RECORD_LOSSES_FILE,
    REPORTS_FILE,
    RESULT_FILE,
    checkpoint_folders,
    trial_folder,
)
from lora_runner.protocol import (
    COMPLETE,
    DIVERGED,
    FAILED,
    OUT_OF_MEMORY,
    PRUNED,
    PUT_BACK,
    RecordLosses,
    SeatReport,
)

_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a damaged file can raise."""
_OUTCOMES = (None, COMPLETE, PRUNED, DIVERGED, OUT_OF_MEMORY, FAILED, PUT_BACK)
_COUNTS = ("number", "attempt", "percent", "step", "num_tokens")
_WORK = (CHECKPOINT, ADAPTER, REPORTS_FILE, RESULT_FILE, RECORD_LOSSES_FILE)


def read_result(run_folder: Path, trial: FrozenTrial) -> SeatReport | None:
    """A trial's last report; None if there is none, or if it belongs to another config."""
    path = run_folder / trial.user_attrs["folder"] / RESULT_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("config_hash") != trial.user_attrs["config_hash"]:
            return None
        report = _report(values)
    except (OSError, *_DAMAGED):
        return None
    return report if report.number == trial.number and report.is_end else None


def read_reports(run_folder: Path, trial: FrozenTrial) -> list[SeatReport]:
    """A trial's reports before its end, by rising percent, whether or not the study has them.

    Lines that cannot be read (a crash may have cut the last one) and those of another config are skipped.
    """
    reports: dict[int, SeatReport] = {}
    path = run_folder / trial.user_attrs["folder"] / REPORTS_FILE
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        with contextlib.suppress(*_DAMAGED):
            values = json.loads(line)
            if values.pop("config_hash") != trial.user_attrs["config_hash"]:
                continue
            report = _report(values)
            if report.number == trial.number and report.outcome is None and report.eval_loss is not None:
                reports.setdefault(report.percent, report)
    return [reports[percent] for percent in sorted(reports)]


def _report(values: Mapping[str, Any]) -> SeatReport:
    """A valid report; raises one of `_DAMAGED` for anything else."""
    report = SeatReport.from_dict(values)
    if any(type(getattr(report, name)) is not int for name in _COUNTS):
        raise TypeError("A report's counts are whole numbers.")
    if report.outcome not in _OUTCOMES or not 0 <= report.percent <= 100:
        raise ValueError("No report has this outcome or percent.")
    if any(
        value is not None and type(value) not in (float, int) for value in (report.eval_loss, report.metric)
    ):
        raise TypeError("Losses and metrics are numbers.")
    if not all(isinstance(text, str | None) for text in (report.error, report.stop_reason)):
        raise TypeError("Errors and reasons are text.")
    return report


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file, unless it is the last line already: a report may come twice.

    A last line that was cut by a crash is terminated first.
    """
    new = f"{line}\n".encode()
    with path.open("ab+") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - len(new) - 1))
        tail = file.read()
        if tail.endswith(new) and tail[: -len(new)] in (b"", b"\n"):
            return
        file.write(new if tail.endswith(b"\n") or not tail else b"\n" + new)


def write_record_losses(folder: Path, found: RecordLosses) -> None:
    """Keep a trial's loss on each evaluation record, to eight digits: about 16 bytes a record."""
    values = {"nats": [float(f"{nats:.8g}") for nats in found.nats], "tokens": list(found.tokens)}
    atomic_write(folder / RECORD_LOSSES_FILE, json.dumps(values, separators=(",", ":")))


def remove_adapter(run_folder: Path, number: int) -> None:
    shutil.rmtree(run_folder / trial_folder(number) / ADAPTER, ignore_errors=True)


def remove_checkpoint(run_folder: Path, number: int) -> None:
    """Remove a trial's checkpoints; with trained embeddings each takes gigabytes."""
    newest, previous = checkpoint_folders(run_folder / trial_folder(number))
    for folder in (newest, previous):
        shutil.rmtree(folder, ignore_errors=True)
    remove_temporaries(newest)


def set_aside(folder: Path) -> Path | None:
    """If the folder of a new trial holds another trial's files, rename it and return its new path.

    That happens when the study was deleted but the run folder was not. A new trial must not resume from
    there.
    """
    if not any((folder / name).exists() for name in _WORK):
        return None
    paths = (folder.with_name(f"{folder.name}.earlier-{n}") for n in itertools.count(1))
    return folder.rename(next(path for path in paths if not path.exists()))
