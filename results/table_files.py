"""The tables of a study as files: CSV for people, parquet with its types for programs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import optuna
import pandas as pd

from files_and_text.atomic_files import atomic_write
from results.frames import reports_frame, trials_frame, write_trials_csv

TRIALS_CSV, TRIALS_PARQUET, REPORTS_PARQUET = "trials.csv", "trials.parquet", "reports.parquet"


class Tables(NamedTuple):
    """`trials_frame` and `reports_frame` of one study."""

    trials: pd.DataFrame
    reports: pd.DataFrame


def tables(study: optuna.Study) -> Tables:
    """Both tables of a study."""
    return Tables(trials_frame(study), reports_frame(study))


def write_tables(study: optuna.Study, folder: Path) -> None:
    """Write trials.csv, trials.parquet and reports.parquet into a folder, each whole or not at all."""
    trials, reports = tables(study)
    write_trials_csv(trials, folder / TRIALS_CSV)
    _write_parquet(trials, folder / TRIALS_PARQUET)
    _write_parquet(reports, folder / REPORTS_PARQUET)


def read_tables(folder: Path) -> Tables:
    """Read back what `write_tables` wrote, values and types; FileNotFoundError when there is nothing."""
    return Tables(pd.read_parquet(folder / TRIALS_PARQUET), pd.read_parquet(folder / REPORTS_PARQUET))


def _write_parquet(frame: pd.DataFrame, path: Path) -> Path:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return atomic_write(path, buffer.getvalue())
