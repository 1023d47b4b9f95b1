"""The results in the run folder: trials and reports as tables, best/, the verdict and the report."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import optuna

from results.answer.answer import Answer
from results.answer.read_answer import read_answer
from results.best import write_best
from results.errors import NothingToSay
from results.render.files import write_verdict
from results.report import write_report
from results.sweep_result import read_study
from results.tables import write_tables
from results.verdict.verdict import Verdict, verdict
from sweeps.config import RESOLVED_NAME, SweepConfig, resolved
from sweeps.console import shown_path


def write_result_files(
    config: SweepConfig, study: optuna.Study, replicates: optuna.Study | None, *, tokenizer: Path | None
) -> None:
    """Write all result files, as far as there are results.

    `tokenizer` is a folder with the tokenizer for best/; with None best/ keeps the one it has.
    """
    write_tables(study, config.run_folder)
    with suppress(NothingToSay):  # the report says why
        found = verdict(study, replicates, run_folder=config.run_folder)
        answer = answer_of(config, study, found)
        write_best(study, config.run_folder, answer=answer, tokenizer=tokenizer)
        write_verdict(found, answer, config.run_folder)
    write_report_file(config, study, replicates)


def answer_of(config: SweepConfig, study: optuna.Study, found: Verdict | None) -> Answer:
    """The answer with the run folder as a person types it; `found` is the verdict, None without a trial."""
    folder = str(shown_path(config.run_folder))
    return read_answer(read_study(study), found, run_folder=folder, target=config.trials)


def write_report_file(
    config: SweepConfig, study: optuna.Study, replicates: optuna.Study | None, *, margin: float | None = None
) -> Path:
    """Write report.html; returns its path."""
    folder = config.run_folder
    try:
        answer = verdict(study, replicates, margin=margin, run_folder=folder)
    except NothingToSay:
        answer = None
    sweep_file = folder / RESOLVED_NAME
    return write_report(
        study,
        answer,
        folder,
        sweep_file=sweep_file.read_text(encoding="utf-8") if sweep_file.is_file() else resolved(config),
        run_folder=str(shown_path(folder)),
        target=config.trials,
    )
