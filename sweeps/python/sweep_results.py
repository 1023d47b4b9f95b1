"""What a sweep has found: the half of `Sweep` that reads its study, and how a sweep shows itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from files_and_text.numbers import plural
from files_and_text.problems import ExpectedError
from files_and_text.shown import Shown
from sweeps.config import storage_url
from sweeps.console import shown_path
from sweeps.errors import RunFolderError, StorageUnreachable
from sweeps.python.plots import Plots

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from results.answer.answer import Answer
    from results.export import ExportResult
    from results.tables import Tables
    from results.verdict.verdict import Verdict
    from sweeps.config import SweepConfig
    from sweeps.python.best import Best
    from sweeps.python.shown_answer import ShownAnswer
    from sweeps.study.status import Status


class SweepResults(Shown):
    """The study of a sweep, running or ended, and its results."""

    config: SweepConfig

    @property
    def run_folder(self) -> Path:
        return self.config.run_folder

    @property
    def storage_url(self) -> str:
        """May hold a password: open it, never show it."""
        return storage_url(self.config.storage, self.run_folder)

    def study(self) -> optuna.Study:
        """The study, for reading. RunFolderError when the sweep has not started."""
        from sweeps.study.study import started_study

        return started_study(self.storage_url, self.config.name)

    def replicates(self) -> optuna.Study | None:
        """The confirm study, for reading; None before the first `confirm`."""
        from results.verdict.replicates import CONFIRM_SUFFIX
        from sweeps.study.study import peek

        return peek(self.storage_url, self.config.name + CONFIRM_SUFFIX)

    def status(self) -> Status:
        """Where the sweep stands: from `progress.json` while it or its confirmation runs, else its study."""
        from sweeps.console import shown_path
        from sweeps.progress.paused_trials import add_paused
        from sweeps.study.progress_file import read_progress
        from sweeps.study.read_status import read_status

        if (now := read_progress(self.run_folder)) is not None:
            return now
        status = read_status(self.study(), self.config.trials)
        if (confirmation := self.replicates()) is not None:
            status.confirm_runs = read_status(confirmation, 0).finished
            best = None if status.best is None else self.read_answer().best
            if best is not None and best.loss.seeds and status.best is not None:
                status.best |= {"eval_loss": best.loss.value, "seeds": best.loss.seeds}
        return add_paused(status, self.run_folder, str(shown_path(self.run_folder)))

    def tables(self) -> Tables:
        """Trials and reports as pandas tables.

        From the parquet files in the run folder when the study cannot be read any more.
        """
        from results.tables import read_tables, tables

        try:
            return tables(self.study())
        except (StorageUnreachable, RunFolderError):
            with suppress(FileNotFoundError, NotADirectoryError):
                return read_tables(self.run_folder)
            raise

    def verdict(self, *, write: bool = True, margin: float | None = None) -> Verdict:
        """Check the results against the guideline rows; writes verdict.json and verdict*.md if `write`.

        Replicates count when there are any. `margin` is a share of the best's loss; None is that of the
        confirmation, or 0.5% before there is one.
        """
        from results.render.files import write_verdict
        from results.verdict.verdict import verdict

        answer = verdict(self.study(), self.replicates(), margin=margin, run_folder=self.run_folder)
        if write:
            write_verdict(answer, self.read_answer(margin=margin), self.run_folder)
        return answer

    @property
    def answer(self) -> ShownAnswer:
        """What to use, what it is worth, how sure that is, and what to do next; also while the sweep runs.

        Raises RunFolderError when the sweep has not started.
        """
        from sweeps.python.shown_answer import ShownAnswer

        return ShownAnswer.of(self.read_answer())

    def read_answer(self, run_folder: Path | str | None = None, *, margin: float | None = None) -> Answer:
        """The same with another margin; `run_folder` names the run in commands, by default from here."""
        from results.answer.read_answer import read_answer
        from results.sweep_result import read_study
        from results.verdict.verdict import verdict

        sweep = read_study(self.study())
        replicates, here = self.replicates(), self.run_folder
        found = verdict(sweep, replicates, margin=margin, run_folder=here) if sweep.started else None
        folder = str(run_folder or shown_path(self.run_folder))
        return read_answer(sweep, found, run_folder=folder, target=self.config.trials)

    def report(self, *, margin: float | None = None) -> Path:
        """Write report.html, one page that opens without a network, into the run folder; return its path."""
        from sweeps.run.result_files import write_report_file

        return write_report_file(self.config, self.study(), self.replicates(), margin=margin)

    def export(
        self,
        target: str,
        output: Path | None = None,
        *,
        target_version: str | None = None,
        strict: bool = False,
        overwrite: bool = False,
    ) -> ExportResult:
        """Write the best config for another program; the adapter goes along where the target takes one, the
        sweep's records where it reads records with its own code."""
        from files_and_text.trial_paths import BEST_FOLDER
        from results.best import best_config, read_best_config
        from results.export import TARGETS, export
        from sweeps.python.used_records import used_records

        best = self.run_folder / BEST_FOLDER
        if (best / "config.yaml").is_file():
            config, adapter = read_best_config(best), best
        else:
            config, adapter = best_config(self.study(), answer=self.read_answer()), None
        # Records given in Python moved with the folder.
        ours = {role: str(getattr(self.config.data, role)) for role in ("train", "eval")}
        inside = {role: path for role, path in ours.items() if Path(path).is_relative_to(self.run_folder)}
        config = {**config, "data": {**(config.get("data") or {}), **inside}}
        folder = output or self.run_folder / "export" / target
        records, reason = None, ""
        if target in TARGETS and TARGETS[target].reads_records:
            data = config["data"]
            try:
                records = used_records(
                    self.config, train_digest=data.get("train_digest"), eval_digest=data.get("eval_digest")
                )
            except (ExpectedError, OSError) as error:
                reason = str(error).rstrip(".")
        result = export(
            target,
            config,
            adapter,
            folder,
            target_version=target_version,
            strict=strict,
            overwrite=overwrite,
            records=records,
        )
        if reason:
            result.notes.append(f"The sweep's records could not be written beside the settings: {reason}.")
        with suppress(StorageUnreachable, RunFolderError):  # best/ can be exported without its study
            if self.read_answer().uses_default:
                result.notes.insert(0, "on the seeds of the confirmation the guideline default is better")
        return result

    def write_results(self) -> None:
        """Write tables, best/, verdict and report as far as there are results; a run does so at its end."""
        from sweeps.run.result_files import write_result_files

        write_result_files(self.config, self.study(), self.replicates(), tokenizer=None)

    @property
    def best(self) -> Best:
        """The best trial as arguments for transformers, TRL and peft, with its adapter.

        Raises NothingToSay when no trial has finished, RunFolderError when the sweep has not started.
        """
        from sweeps.python.best import read_best

        return read_best(self.study(), self.answer, self.run_folder)

    @property
    def results(self) -> pd.DataFrame:
        """One row per trial, by number (`results.tables.trials_frame` names the columns)."""
        return self.tables().trials

    @property
    def reports(self) -> pd.DataFrame:
        """One row per evaluation of a trial: number, percent of its budget, eval_loss."""
        return self.tables().reports

    @property
    def plot(self) -> Plots:
        """The sweep's charts as plotly figures: `sweep.plot.learning_rate()`, `.curves()` and others."""
        return Plots(self.config.name, self.study, lambda: self.answer)

    def _shown(self) -> tuple[str, Mapping[str, str]]:
        config = self.config
        training = config.training
        length = f"{training.num_train_epochs:g} epochs" if training.max_steps is None else None
        facts = {
            "model": config.model.name,
            "data": config.data.train,
            "trials": f"{config.trials} of {length or plural(training.max_steps or 0, 'step')}",
            "folder": str(shown_path(self.run_folder)),
        }
        from results.text.gaps import loss_text

        # A database elsewhere may not answer, and a sweep must always be shown.
        if config.storage is None or config.storage.startswith(("sqlite", "journal:")):
            with suppress(ExpectedError):
                answer = self.read_answer()
                facts["trials"] += f", {answer.run.finished} finished"
                if answer.best is not None:
                    facts["best"] = f"trial {answer.best.trial}, loss {loss_text(answer.best.loss)}"
        return f"Sweep {config.name!r}", facts
