"""A sweep as an object: the command line's verbs as functions, for notebooks and for `cli.py`."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import optuna
from rich.console import Console

from files_and_text.problems import Problem
from files_and_text.yaml_lines import KeyPath
from results.best import BEST_FOLDER, best_config, read_best_config, write_best
from results.errors import NothingToSay
from results.export import ExportResult, export
from results.render.files import write_verdict
from results.render.terminal import print_verdict
from results.report import write_report
from results.table_files import Tables, read_tables, tables, write_tables
from results.verdict.replicates import CONFIRM_SUFFIX, margin_of
from results.verdict.verdict import Verdict, verdict
from sweeps.artifacts.run_folder import check_run_folder, write_run_folder
from sweeps.artifacts.served_tokenizer import save_tokenizer
from sweeps.config import RESOLVED_NAME, SweepConfig, load_sweep, problem_at, resolved, storage_url
from sweeps.config.storage_url import absolute_storage, check_storage
from sweeps.confirm.confirm_plan import Asked
from sweeps.confirm.run_confirmation import Confirmation, ConfirmResult, sweep_to_confirm
from sweeps.errors import ConfigError, RunFolderError, StartFailed, StorageUnreachable, SweepFailed
from sweeps.fleet.signals import stop_on_signals
from sweeps.keeper.failed_trials import TRY_AGAIN, failed_trials, without_value
from sweeps.plan.plan_text import notice_text
from sweeps.storage.open_storage import check_reachable
from sweeps.study.lease import DriverProcess, Lease, lease_of, refuse_if_held
from sweeps.study.status import Status, read_status
from sweeps.study.study import peek, started_study
from sweeps.tracking.follow import following
from sweeps.tracking.update import check_installed, track

if TYPE_CHECKING:
    from lora_runner.data import RecordView
    from sweeps.plan.blueprint import Blueprint
    from sweeps.plan.specs import StudySpec
    from sweeps.study.move_study import MovedStudies


GO_ON = "Run the same command to go on; nothing that was finished is lost."


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    status: Status
    interrupted: bool
    added: int
    """Trials that this run finished."""
    run_folder: Path
    failures: str | None = None
    """What failed and was not made up for, in words."""


class Sweep:
    """One sweep file or run folder.

    >>> sweep = Sweep.load("sweep.yaml")
    >>> sweep.run()
    >>> sweep.verdict()
    """

    def __init__(self, config: SweepConfig) -> None:
        self.config = config
        # Without a file there is no line to name.
        self._problem_at: Callable[[KeyPath, str], Problem] = lambda _, message: Problem(message)

    @classmethod
    def load(
        cls, path: Path | str, overrides: Mapping[str, Any] | None = None, *, check_files: bool = True
    ) -> Sweep:
        """Read a sweep file or run folder; ConfigError holds all of its problems.

        Without `check_files`, model and data need not be there any more: enough to read results.
        """
        sweep = cls(load_sweep(path, overrides=overrides, check_files=check_files))
        sweep._problem_at = partial(problem_at, path, overrides=overrides)
        return sweep

    @property
    def run_folder(self) -> Path:
        return self.config.run_folder

    @property
    def storage_url(self) -> str:
        """May hold a password: open it, never show it."""
        return storage_url(self.config.storage, self.run_folder)

    def plan(self) -> Blueprint:
        """Validate everything and draw up what would run. Writes nothing."""
        from sweeps.plan.build_blueprint import build_blueprint

        return build_blueprint(self.config, self._problem_at)

    def show_record(self, number: int) -> RecordView:
        """Training record `number`, from 1 in the order of the files, as the model sees it. Writes nothing.

        Raises DataError for a number beyond the records.
        """
        from lora_runner.base.load_model import load_tokenizer
        from lora_runner.data import DataSpec, show_record
        from sweeps.plan.build_blueprint import base_spec

        tokenizer = load_tokenizer(base_spec(self.config))
        return show_record(DataSpec(**self.config.data.model_dump()), tokenizer, number)

    def study(self) -> optuna.Study:
        """The study, for reading. RunFolderError when the sweep has not started."""
        return started_study(self.storage_url, self.config.name)

    def status(self) -> Status:
        """Counts, best and guideline default as the study has them now."""
        return read_status(self.study(), self.config.trials)

    def tables(self) -> Tables:
        """Trials and reports as pandas tables, also of a running sweep.

        From the run folder's parquet files where the study's database cannot be reached any more.
        """
        try:
            return tables(self.study())
        except (StorageUnreachable, RunFolderError):
            try:
                return read_tables(self.run_folder)
            except (FileNotFoundError, NotADirectoryError):
                pass
            raise

    def track(self, *trackers: str) -> dict[str, int]:
        """Bring trackers up to date (default: those of the file's `tracking.to`), as often as you like.

        Returns for each the number of trials that there was something new of. Raises TrackingNotInstalled or
        TrackingFailed.
        """
        return track(self.config, trackers or self.config.tracking.to)

    def replicates(self) -> optuna.Study | None:
        """The confirm study, for reading; None before the first replicate was planned."""
        return peek(self.storage_url, self.config.name + CONFIRM_SUFFIX)

    def verdict(self, *, write: bool = True, margin: float | None = None) -> Verdict:
        """Check the results against the guideline rows; writes verdict.json and verdict.md if `write`.

        Replicates count when there are any. `margin` is a share of the best's loss; None is that of the
        confirmation, or 0.5% before there is one.
        """
        answer = verdict(self.study(), self.replicates(), margin=margin)
        if write:
            write_verdict(answer, self.run_folder)
        return answer

    def report(self, *, margin: float | None = None) -> Path:
        """Write report.html, one page that opens without a network, into the run folder; return its path."""
        study = self.study()
        try:
            answer = self.verdict(write=False, margin=margin)
        except NothingToSay:
            answer = None
        kept = self.run_folder / RESOLVED_NAME
        return write_report(
            study,
            answer,
            self.run_folder,
            sweep_file=kept.read_text(encoding="utf-8") if kept.is_file() else resolved(self.config),
            run_folder=f"{self.run_folder.parent.name}/{self.run_folder.name}",
            target=self.config.trials,
        )

    def export(
        self,
        target: str,
        destination: Path | None = None,
        *,
        target_version: str | None = None,
        strict: bool = False,
        overwrite: bool = False,
    ) -> ExportResult:
        """Write the best config for another program; the adapter goes along where the target takes one."""
        best = self.run_folder / BEST_FOLDER
        if (best / "config.yaml").is_file():
            config, adapter = read_best_config(best), best
        else:
            config, adapter = best_config(self.study()), None
        folder = destination or self.run_folder / "export" / target
        return export(
            target,
            config,
            adapter,
            folder,
            target_version=target_version,
            strict=strict,
            overwrite=overwrite,
        )

    def run(self, *, address: str | None = None, console: Console | None = None) -> RunResult:
        """Run the sweep, or go on with it after any interruption, until `trials` are finished in its study.

        Ctrl-C and SIGTERM checkpoint the running trials and end. Raises a SweepError; nothing is written
        before the data, the model and the storage have been found in order.
        """
        check_installed(self.config.tracking.to)
        blueprint = self.plan()
        check_run_folder(self.config)
        check_reachable(self.storage_url, self.run_folder)
        if (store := blueprint.study_spec.checkpoint_store()) is not None:
            store.check()
        study = peek(self.storage_url, self.config.name, blueprint.study_spec.identity)
        then = None if study is None else read_status(study, self.config.trials)
        before, failed_before = (0, 0) if then is None else (then.finished, then.failed)
        console = console or Console()
        for notice in blueprint.data.notices:
            console.print(notice_text(notice), highlight=False, soft_wrap=True)
        interrupted, errors = False, list[str]()
        if study is None or self._has_work(study):
            try:
                interrupted, errors = self._run_on_ray(blueprint, study, address, console)
            except StartFailed:
                with suppress(StorageUnreachable):
                    self.write_results()  # of the trials that ended before
                raise
        else:
            write_run_folder(self.config)
        try:
            status = self.status()
            with TemporaryDirectory(prefix="sweeps-tokenizer-") as folder:
                template = blueprint.study_spec.context["chat_template"]
                if (problem := save_tokenizer(blueprint.tokenizer, template, Path(folder))) is not None:
                    console.print(problem, markup=False, highlight=False, soft_wrap=True)
                self.write_results(tokenizer=Path(folder))
        except StorageUnreachable as error:
            raise SweepFailed("\n".join([*errors, str(error), GO_ON])) from None
        failures = failed_trials(self.study(), self.run_folder)
        if not interrupted:
            self._check_end(status, status.failed - failed_before, errors, failures)
        added = status.finished - before
        return RunResult(status, interrupted, added, self.run_folder, failures=failures)

    def _check_end(self, status: Status, num_failed: int, errors: list[str], failures: str | None) -> None:
        """Raise SweepFailed for a run that ended without what was asked; `num_failed` trials failed in it."""
        study, limit = self.study(), self.config.reliability.max_failures
        told = list[str]()
        if status.finished < self.config.trials:
            told += errors
            in_time = self.config.search.timeout_seconds is None
            if num_failed >= limit:
                told.append(f"{num_failed} trials failed in this run: reliability.max_failures is {limit}.")
            if failures is not None and (in_time or num_failed >= limit):
                told.append(failures)
            used_up = self.config.search.sampler in ("grid", study.user_attrs.get("exhausted"))
            if not told and in_time and not used_up:
                told.append("the workers ended before.")
            again = GO_ON if failures is None else TRY_AGAIN
        else:
            again = "More `trials` go on from here; another space or training needs another `name`."
        if not told and (why := without_value(study, status, self.run_folder)) is not None:
            told.append(why)
        if told:
            counts = f"{status.finished} of {self.config.trials} trials finished."
            raise SweepFailed("\n".join([counts, *told, again]))

    def confirm(
        self,
        *,
        best: int = 1,
        rows: bool = True,
        trials: int | None = None,
        hours: float | None = None,
        margin: float | None = None,
        anew: bool = False,
        address: str | None = None,
        console: Console | None = None,
    ) -> ConfirmResult:
        """Run the best configs, the guideline default and each tested row's own value again on new seeds.

        Until each has its relation to the best or the budget is used up; the same call goes on from there.
        `margin` is a share of the best's loss; None is that of the confirmation so far, or 0.5%. `anew` puts
        an earlier confirmation away.
        """
        if margin is None:
            margin = margin_of(None if anew else self.replicates())
        asked = Asked(best=best, rows=rows, trials=trials, hours=hours, margin=margin)
        sweep = sweep_to_confirm(self.study(), lease_seconds=self.config.reliability.lease_seconds)
        blueprint = self.plan()
        check_run_folder(self.config)
        peek(self.storage_url, self.config.name, blueprint.study_spec.identity)

        def run_study(study_spec: StudySpec, study: optuna.Study | None) -> tuple[bool, list[str]]:
            return self._run_on_ray(
                replace(blueprint, study_spec=study_spec), study, address, console or Console()
            )

        confirmation = Confirmation(self.storage_url, blueprint.study_spec, sweep, asked, run_study)
        progress, answer = confirmation.prepare(anew=anew).run(), self.verdict(margin=margin)
        self.report(margin=margin)
        if progress.unfinished:
            print_verdict(answer, console or Console())  # what the other arms came to
            failures = [progress.failures, progress.advice] if progress.failures else [GO_ON]
            raise SweepFailed("\n".join([progress.counts, *progress.errors, *failures]))
        return ConfirmResult(answer, progress, self.run_folder)

    def _has_work(self, study: optuna.Study) -> bool:
        status = read_status(study, self.config.trials)
        return status.finished < self.config.trials or status.states.get("RUNNING", 0) > 0

    def _run_on_ray(
        self, blueprint: Blueprint, study: optuna.Study | None, address: str | None, console: Console
    ) -> tuple[bool, list[str]]:
        """`_run_fleet`, with a word for the user when Ray itself ends under the sweep."""
        try:
            return self._run_fleet(blueprint, study, address, console)
        except Exception as error:
            if not type(error).__module__.startswith("ray."):
                raise
            line = next(iter(str(error).splitlines()), "")
            raise SweepFailed(
                f"Ray ended under the sweep ({type(error).__name__}: {line})\n{GO_ON}"
            ) from error

    def _run_fleet(
        self, blueprint: Blueprint, study: optuna.Study | None, address: str | None, console: Console
    ) -> tuple[bool, list[str]]:
        """Whether the run was interrupted, and why it could not be brought to its end."""
        owner = DriverProcess.current(secrets.token_hex(8))
        if study is not None and (lease := refuse_if_held(study, owner)) is not None:
            console.print(
                f"The study was held by {lease.holder()}; waiting up to "
                f"{self.config.reliability.lease_seconds:g} s for a sign of life."
            )
        # Ray takes a second to import; commands that only read never wait for it.
        import ray

        from sweeps.fleet.fleet import open_endpoints, plan_fleet, run_fleet, start_ray
        from sweeps.fleet.live_view import View

        console.print("Starting Ray ..." if address is None else f"Joining Ray at {address} ...")
        start_ray(address)
        fleet = plan_fleet(self.config.workers, self.config.gpus_per_worker, may_grow=address is not None)
        if not (self.run_folder / RESOLVED_NAME).is_file():
            write_run_folder(self.config)  # from here on the sweep exists
        # Entered once the sweep is ours, and left when the office is closed: trackers hold nothing up.
        with (
            ExitStack() as trackers,
            open_endpoints(blueprint.study_spec, self.storage_url, owner) as endpoints,
        ):
            write_run_folder(self.config)  # what may differ from the last run's is ours to say only now
            trackers.enter_context(following(self.config, console.print))
            seats, workers = blueprint.worker_spec.seats, fleet.now
            console.print(
                f"Loading the base on {workers} worker{'s' if workers > 1 else ''} with {seats} "
                f"seat{'s' if seats > 1 else ''} each ..."
            )
            keeper = endpoints.keeper
            view = View(
                status=lambda seen: ray.get(keeper.status.remote(seen), timeout=60),
                request_stop=lambda: ray.get(keeper.request_stop.remote(), timeout=60),
                console=console,
            )
            with view, stop_on_signals(view.stop_wanted):
                errors = run_fleet(endpoints, blueprint.worker_spec, fleet, view.is_ending)
            if (refused := ray.get(keeper.start_error.remote(), timeout=60)) is not None:
                raise refused
            errors += ray.get(keeper.errors.remote(), timeout=60)
            return view.stop_wanted.is_set(), errors

    def stop(self) -> Lease:
        """Ask the running sweep to checkpoint its trials and end; returns the lease of who was asked.

        Raises SweepError when nobody works on the study, or somebody on another machine.
        """
        lease = lease_of(self.study())
        if lease is None or lease.released or lease.owner.is_alive is False:
            raise RunFolderError(f"nobody is working on the sweep {self.config.name!r}")
        if lease.owner.is_alive is None:
            raise RunFolderError(
                f"the sweep {self.config.name!r} runs on another machine ({lease.holder()}); stop it there, "
                "by `sweeps stop`, Ctrl-C, or SIGTERM to that process"
            )
        os.kill(lease.owner.pid, signal.SIGTERM)
        return lease

    def move(self, storage: str) -> MovedStudies:
        """Copy the sweep's studies to another storage, and let the run folder say that they are there now.

        `storage` as a sweep file has it; a relative path starts from the working directory. The old storage
        stays as it is. Raises ConfigError, RunFolderError, and what `copy_studies` raises.
        """
        from sweeps.study.move_study import MovedStudies, copy_studies

        try:
            reference = absolute_storage(check_storage(storage), Path.cwd())
        except ValueError as error:
            raise ConfigError([f"--to {error}"]) from None
        check_run_folder(self.config, may_differ=True)
        began = (self.run_folder / RESOLVED_NAME).is_file()
        # The folder's own file says where the study is, whatever the environment has come to say since.
        config = load_sweep(self.run_folder, check_files=False) if began else self.config
        studies = copy_studies(
            storage_url(config.storage, self.run_folder),
            storage_url(reference, self.run_folder),
            (config.name, config.name + CONFIRM_SUFFIX),
            lease_seconds=config.reliability.lease_seconds,
        )
        self.config = self.config.model_copy(update={"storage": reference})
        if began:
            write_run_folder(config.model_copy(update={"storage": reference}))
        assert reference is not None
        return MovedStudies(storage=reference, studies=studies)

    def write_results(self, *, tokenizer: Path | None = None) -> None:
        """Write the tables, the verdict and best/ as far as there is anything to say, and the report.

        `tokenizer` is a folder with the tokenizer for best/; without one best/ keeps that which it has.
        """
        study = self.study()
        write_tables(study, self.run_folder)
        try:
            write_best(study, self.run_folder, tokenizer=tokenizer)
            write_verdict(verdict(study, self.replicates()), self.run_folder)
        except NothingToSay:
            pass  # the report says why
        self.report()


def load(path: Path | str) -> Tables:
    """The tables of a sweep file or run folder, for notebooks: `trials, reports = load("runs/demo")`.

    One row a trial and one row a report (`results.frames` names the columns); typed, missing values are
    pandas' NA. Raises what `Sweep.load` and `Sweep.study` raise.
    """
    return Sweep.load(path, check_files=False).tables()
