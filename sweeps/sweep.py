"""`Sweep`: one sweep file or run folder, with a method for each command.

A method imports what it runs, so that reading a study does not wait for torch, Ray, pandas or scipy.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from files_and_text.problems import Problem
from sweeps.config import RESOLVED_NAME, SweepConfig, load_sweep, problem_at, storage_url
from sweeps.console import console_of, say
from sweeps.errors import ConfigError, RunFolderError, SweepFailed
from sweeps.python.sweep_results import SweepResults

if TYPE_CHECKING:
    import optuna
    from rich.console import Console

    from files_and_text.yaml_lines import ProblemAt
    from lora_runner.data import RecordView
    from results.tables import Tables
    from sweeps.confirm.confirmation import ConfirmResult
    from sweeps.confirm.power_plan import PowerPlan
    from sweeps.plan.blueprint import Blueprint
    from sweeps.plan.specs import StudySpec
    from sweeps.replay.comparison import Replay
    from sweeps.run.callbacks import Callback
    from sweeps.run.run_result import RunResult
    from sweeps.study.lease import Lease
    from sweeps.study.move_study import MovedStudies
    from sweeps.study.stages import Stages


_STOPPABLE: dict[Path, threading.Event] = {}
"""Run folders that are run in this process, each with the event that ends the run."""


@contextmanager
def stoppable(run_folder: Path, stop_wanted: threading.Event) -> Iterator[None]:
    """While the block runs, `Sweep.stop` in this process sets the event instead of sending a signal."""
    _STOPPABLE[run_folder] = stop_wanted
    try:
        yield
    finally:
        _STOPPABLE.pop(run_folder, None)


class Sweep(SweepResults):
    """One sweep: of a sweep file, a run folder, or arguments.

    >>> sweep = Sweep.load("sweep.yaml")
    >>> sweep.run()
    >>> sweep.answer
    """

    def __init__(self, config: SweepConfig) -> None:
        self.config = config
        # Without a file there is no line to name.
        self._problem_at: ProblemAt = lambda _, message: Problem(message)

    @classmethod
    def new(
        cls,
        model: str | Path | Mapping[str, Any],
        train: Any,
        *,
        eval: Any = None,
        scenario: str = "general",
        name: str | None = None,
        run_folder: Path | str | None = None,
        **keys: Any,
    ) -> Sweep:
        """A sweep of arguments instead of a file; nothing is written before it runs.

        `train` and `eval`: a file, folder or hub id, a `datasets.Dataset`, a DataFrame, or a list of records
        as dicts, which are written into the run folder when the sweep starts. `keys` are the sweep file's,
        sections as dicts: `training={"max_steps": 100}`, `trials=16`. Without `name` the sweep is called
        after model and data; without `max_steps` trials have as many steps as the scenario's tables say.
        `run_folder` stands for `output` and `name`; one that holds this sweep is continued. Raises
        ConfigError with every problem, RunFolderError when the run folder holds a sweep with other settings.
        """
        from sweeps.python.new_config import new_config

        config, problem_at = new_config(
            model, train, eval=eval, scenario=scenario, name=name, run_folder=run_folder, **keys
        )
        sweep = cls(config)
        sweep._problem_at = problem_at
        return sweep

    @classmethod
    def load(
        cls, path: Path | str, overrides: Mapping[str, Any] | None = None, *, check_files: bool = True
    ) -> Sweep:
        """Read a sweep file or run folder; ConfigError holds all of its problems.

        Without `check_files`, model and data need not exist any more: enough to read results.
        """
        sweep = cls(load_sweep(path, overrides=overrides, check_files=check_files))
        sweep._problem_at = partial(problem_at, path, overrides=overrides)
        return sweep

    # --- before a run -----------------------------------------------------------------------------

    def plan(self, stages: Stages | None = None, *, gpu: str | None = None, gpus: int = 1) -> Blueprint:
        """Check everything and return what would run; `stages` hold what is being done. Writes nothing.

        `gpu`: estimate for so much memory ("24GiB") or a GPU by name ("H200"), `gpus` of them, which need not
        be here. Raises DeviceError for others.
        """
        from sweeps.run.check_hub import check_hub

        check_hub(self.config)
        from lora_runner.memory.planned_device import PlannedDevice
        from sweeps.plan.build_blueprint import build_blueprint
        from sweeps.python.given_data import readable

        on = None if gpu is None else PlannedDevice.named(gpu, gpus)
        with readable(self.config) as config:
            blueprint = build_blueprint(config, self._problem_at, stages, on=on)
        if config is self.config:
            return blueprint
        study_spec = blueprint.study_spec
        context = {**study_spec.context, "data": asdict(self.config.data)}
        return replace(blueprint, config=self.config, study_spec=replace(study_spec, context=context))

    def show_record(self, number: int) -> RecordView:
        """Training record `number`, from 1 in the order of the files, as the model sees it. Writes nothing.

        Raises DataError for a number beyond the records.
        """
        from lora_runner.base.load_model import load_tokenizer
        from lora_runner.data import show_record
        from sweeps.plan.build_blueprint import base_spec
        from sweeps.python.given_data import readable

        tokenizer = load_tokenizer(base_spec(self.config))
        with readable(self.config) as config:
            return show_record(config.data, tokenizer, number)

    # --- run --------------------------------------------------------------------------------------

    def run(
        self,
        *,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        address: str | None = None,
        console: Console | None = None,
    ) -> RunResult:
        """Run the sweep, or continue it after any interruption, until `trials` are finished in its study.

        `callbacks` are called with every report of this run (`sweeps.Report`), once and in order, in a thread
        of this process; one that raises is reported once and the sweep goes on, `sweeps.StopSweep` ends it.
        `progress`: show a live screen in a terminal or notebook, elsewhere lines. Ctrl-C, SIGTERM, an
        interrupted kernel and `stop` from another thread checkpoint the running trials and end. Raises a
        SweepError; nothing is written before data, model and storage have been checked.
        """
        for callback in callbacks:
            if not callable(callback):
                rule = f"callbacks must be functions of a report; got {callback!r}"
                raise ConfigError([rule])
        from sweeps.run.before_run import finished_run, known_status, refuse_if_running
        from sweeps.run.check_hub import check_hub
        from sweeps.run.same_name import same_name_note
        from sweeps.study.home_folder import refuse_copy
        from sweeps.tracking.update import check_installed
        from sweeps.view.live_view import LiveView

        refuse_copy(self.config)
        refuse_if_running(self.config)
        check_installed(self.config.tracking.to)
        console = console or console_of(progress)
        if (finished := finished_run(self.config)) is not None:
            return replace(finished, answer=self.answer)
        check_hub(self.config)
        if (note := same_name_note(self.config)) is not None:
            say(console, note)
        with LiveView(console, first=known_status(self.config)) as view:
            with view.stages.stage("importing torch and transformers"):
                import sweeps.plan.build_blueprint  # noqa: F401  # here, where it is seen
                from sweeps.run.run_sweep import run_sweep
            with stoppable(self.run_folder, view.stop_wanted):
                result = run_sweep(
                    self.config,
                    partial(self.plan, view.stages),
                    address=address,
                    view=view,
                    callbacks=callbacks,
                )
        return replace(result, answer=self.answer)

    def confirm(
        self,
        *,
        best: int = 1,
        rows: bool = True,
        trials: int | None = None,
        hours: float | None = None,
        margin: float | None = None,
        anew: bool = False,
        progress: bool = True,
        address: str | None = None,
        console: Console | None = None,
    ) -> ConfirmResult:
        """Run the best trials, the guideline default and each tested row's own value again on new seeds.

        Ends when each of them has its relation to the best, or the budget (`trials`, `hours`) is used up; the
        same call continues from there. `margin` is a share of the best's loss; None is that of the
        confirmation so far, or 0.5%. `anew` sets an earlier confirmation aside. `progress` as for `run`.
        """
        from results.render.terminal import print_verdict
        from results.verdict.replicates import margin_of
        from sweeps.artifacts.run_folder import check_run_folder
        from sweeps.confirm.confirmation import Confirmation, ConfirmResult, sweep_to_confirm
        from sweeps.confirm.request import ConfirmRequest
        from sweeps.run.before_run import known_confirmation, refuse_if_running
        from sweeps.run.run_end import CONTINUE
        from sweeps.study.home_folder import refuse_copy
        from sweeps.study.study import peek
        from sweeps.view.live_view import LiveView

        if margin is None:
            margin = margin_of(None if anew else self.replicates())
        refuse_copy(self.config)
        refuse_if_running(self.config)
        request = ConfirmRequest(best=best, rows=rows, trials=trials, hours=hours, margin=margin)
        sweep = sweep_to_confirm(self.study(), lease_seconds=self.config.reliability.lease_seconds)
        console = console or console_of(progress)
        known = known_confirmation(self.config, trials, anew=anew)
        with LiveView(console, first=known) as view:
            with view.stages.stage("importing torch and transformers"):
                import sweeps.plan.build_blueprint  # noqa: F401  # here, where it is seen
                from sweeps.run.run_on_ray import run_on_ray
            blueprint = self.plan(view.stages)
            check_run_folder(self.config)
            peek(self.storage_url, self.config.name, blueprint.study_spec.identity)

            def run_study(study_spec: StudySpec, study: optuna.Study | None) -> tuple[bool, list[str]]:
                confirm_blueprint = replace(blueprint, study_spec=study_spec)
                return run_on_ray(self.config, confirm_blueprint, study, address=address, view=view)

            confirmation = Confirmation(self.storage_url, blueprint.study_spec, sweep, request, run_study)
            with stoppable(self.run_folder, view.stop_wanted):
                ended = confirmation.prepare(anew=anew).run()
            with view.stages.stage("writing the results"):
                answer = self.verdict(margin=margin)
                self.report(margin=margin)
        if ended.unfinished:
            if ended.status.finished:
                print_verdict(answer, self.read_answer(margin=margin), console)
            failures = [ended.failures, ended.advice] if ended.failures else [CONTINUE]
            raise SweepFailed("\n".join([ended.counts, *ended.errors, *failures]))
        return ConfirmResult(answer, ended, self.run_folder)

    def plan_confirm(
        self,
        *,
        best: int = 1,
        rows: bool = True,
        trials: int | None = None,
        hours: float | None = None,
        margin: float | None = None,
        anew: bool = False,
    ) -> PowerPlan:
        """What `confirm` would run with these arguments and what it could see. Writes nothing."""
        from results.verdict.replicates import margin_of
        from sweeps.confirm.confirmation import sweep_to_confirm
        from sweeps.confirm.power_plan import power_plan
        from sweeps.confirm.request import ConfirmRequest

        present = None if anew else self.replicates()
        margin = margin_of(present) if margin is None else margin
        request = ConfirmRequest(best=best, rows=rows, trials=trials, hours=hours, margin=margin)
        sweep = sweep_to_confirm(self.study(), lease_seconds=self.config.reliability.lease_seconds)
        known = self.verdict(write=False).replicates
        return power_plan(self.plan().study_spec, sweep, request, present=present, known=known)

    def replay(
        self,
        number: int,
        *,
        from_percent: int | None = None,
        of_confirmation: bool = False,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Replay:
        """Train a trial again, alone and in this process, and compare every value of its record bit by bit.

        `from_percent`: from a checkpoint that is kept at that share of its budget. `of_confirmation`: a run
        of `confirm`. Writes nothing into the run folder. Raises ReplayError and what `plan` raises.
        """
        from sweeps.plan.build_blueprint import build_blueprint
        from sweeps.replay.replay_trial import replay_trial

        return replay_trial(
            self.config,
            lambda config: build_blueprint(config, self._problem_at),
            number,
            from_percent=from_percent,
            of_confirmation=of_confirmation,
            progress=progress,
        )

    def stop(self) -> Lease:
        """Ask the running sweep, or its confirmation, to checkpoint its trials and end; returns the lease of
        the process asked.

        Raises RunFolderError when no process works on the study, or one on another machine.
        """
        from sweeps.run.before_run import leases

        self.study()  # says so where there is none
        held = [lease for lease in leases(self.config).values() if not lease.released]
        lease = next((lease for lease in held if lease.owner.is_alive is not False), None)
        if lease is None:
            raise RunFolderError(f"the sweep {self.config.name!r} is not running")
        if lease.owner.is_alive is None:
            raise RunFolderError(
                f"the sweep {self.config.name!r} runs on another machine ({lease.holder()}); stop it there, "
                "with `sweeps stop`, Ctrl-C, or SIGTERM to that process"
            )
        if (wanted := _STOPPABLE.get(self.run_folder)) is not None:
            wanted.set()  # in a thread of this process, which a signal would end as a whole
        else:
            os.kill(lease.owner.pid, signal.SIGTERM)
        return lease

    def move(self, storage: str) -> MovedStudies:
        """Copy the sweep's studies to another storage and name that in the run folder's sweep file.

        `storage` is written as in a sweep file; a relative path starts from the working directory. The old
        storage stays as it is. Raises ConfigError, RunFolderError, and what `copy_studies` raises.
        """
        from results.verdict.replicates import CONFIRM_SUFFIX
        from sweeps.artifacts.run_folder import check_run_folder, write_run_folder
        from sweeps.config.storage_url import absolute_storage, check_storage
        from sweeps.study.move_study import MovedStudies, copy_studies

        try:
            reference = absolute_storage(check_storage(storage), Path.cwd())
        except ValueError as error:
            raise ConfigError([f"--to {error}"]) from None
        assert reference is not None
        check_run_folder(self.config, may_differ=True)
        has_begun = (self.run_folder / RESOLVED_NAME).is_file()
        # The run folder's file says where the study is, even when the environment now says something else.
        config = load_sweep(self.run_folder, check_files=False) if has_begun else self.config
        studies = copy_studies(
            storage_url(config.storage, self.run_folder),
            storage_url(reference, self.run_folder),
            (config.name, config.name + CONFIRM_SUFFIX),
            lease_seconds=config.reliability.lease_seconds,
        )
        self.config = self.config.model_copy(update={"storage": reference})
        if has_begun:
            write_run_folder(config.model_copy(update={"storage": reference}))
        return MovedStudies(storage=reference, studies=studies)

    def track(self, *trackers: str) -> dict[str, int]:
        """Bring trackers (default: `tracking.to` of the sweep file) up to date; may be called again at any
        time.

        Returns for each the number of trials for which there was something new. Raises TrackingNotInstalled
        or TrackingFailed.
        """
        from sweeps.tracking.update import track

        return track(self.config, trackers or self.config.tracking.to)


def load(path: Path | str) -> Tables:
    """The tables of a sweep file or run folder, for notebooks: `trials, reports = load("runs/demo")`.

    One row per trial and one per report (`results.tables` names the columns); typed, missing values are
    pandas' NA. Raises what `Sweep.load` and `Sweep.study` raise.
    """
    return Sweep.load(path, check_files=False).tables()
