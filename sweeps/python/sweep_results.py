"""The results of a sweep as properties, and how a sweep shows itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from files_and_text.numbers import plural
from files_and_text.problems import ExpectedError
from files_and_text.shown import Shown
from sweeps.console import shown_path
from sweeps.python.plots import Plots

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from results.answer.answer import Answer
    from results.tables import Tables
    from sweeps.config import SweepConfig
    from sweeps.python.best import Best
    from sweeps.study.status import Status


class SweepResults(Shown):
    """What `Sweep` adds to its methods for someone who works with it in Python."""

    config: SweepConfig

    if TYPE_CHECKING:

        @property
        def run_folder(self) -> Path: ...

        @property
        def answer(self) -> Answer: ...

        def study(self) -> optuna.Study: ...

        def status(self) -> Status: ...

        def tables(self) -> Tables: ...

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
        # A database elsewhere may not answer, and a sweep must always be shown.
        if config.storage is None or config.storage.startswith(("sqlite", "journal:")):
            with suppress(ExpectedError):
                status = self.status()
                facts["trials"] += f", {status.finished} finished"
                if status.best is not None:
                    loss = status.best["eval_loss"]
                    facts["best so far"] = f"trial {status.best['number']}, loss {loss:.3f}"
        return f"Sweep {config.name!r}", facts
