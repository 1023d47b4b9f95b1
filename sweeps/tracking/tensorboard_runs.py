"""TensorBoard: one folder of event files per trial."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from files_and_text.atomic_files import atomic_copy
from sweeps.tracking.trial_record import TrialRecord

FOLDER = "tensorboard"


def to_tensorboard(records: Sequence[TrialRecord], run_folder: Path) -> int:
    """Write what is new into `tensorboard/` in the run folder; returns the number of trials written.

    A trial has one event file with a digest of its content in its name: it is replaced when the content has
    changed. Curves are logged by optimizer step and, under `by_percent`, by percent of the budget.
    """
    written = 0
    for record in records:
        folder = run_folder / FOLDER / record.name
        newest = record.finished or (record.points[-1].seconds if record.points else record.started)
        # TensorBoard reads the files of a folder in the order of their names, which begin with a time.
        file = folder / f"events.out.tfevents.{int(newest):010d}.{record.digest()}"
        if file.is_file():
            continue
        with tempfile.TemporaryDirectory() as temporary:
            atomic_copy(_event_file(record, Path(temporary)), file)
        for old in folder.glob("events.out.tfevents.*"):
            if old != file:
                old.unlink(missing_ok=True)
        written += 1
    names = {record.name for record in records}
    for trial in (run_folder / FOLDER).glob("trial-*"):
        if trial.name not in names:  # of an earlier study that was deleted and started again
            shutil.rmtree(trial, ignore_errors=True)
    return written


def _event_file(record: TrialRecord, folder: Path) -> Path:
    from tensorboardX import SummaryWriter
    from tensorboardX.summary import hparams

    with SummaryWriter(str(folder)) as writer:
        for point in record.points:
            for name, value in point.values.items():
                writer.add_scalar(name, value, point.step, walltime=point.seconds)
                writer.add_scalar(f"by_percent/{name}", value, point.percent, walltime=point.seconds)
        end = record.finished or record.started
        last_step = record.points[-1].step if record.points else 0
        for name, value in record.final.items():
            writer.add_scalar(f"final/{name}", value, last_step, walltime=end)
        if record.outcome:
            text = f"**{record.outcome}**: {record.reason}"
            writer.add_text("outcome", text, last_step, walltime=end)
        writer.add_text("tags", "\n".join(f"- {k}: {v}" for k, v in record.tags.items()), 0, walltime=end)
        metrics = {f"final/{name}": value for name, value in record.final.items()}
        for summary in hparams(dict(record.params), metrics):
            writer.file_writer.add_summary(summary, global_step=0, walltime=record.started)
    (file,) = folder.iterdir()
    return file
