"""A run from start to end: check everything, train what is missing, write the results, judge how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rich.text import Text

from lora_runner.base.read_ahead import read_ahead
from results.verdict.replicates import CONFIRM_SUFFIX
from sweeps.artifacts.run_folder import check_run_folder, write_run_folder
from sweeps.config import SweepConfig, storage_url
from sweeps.errors import StartFailed, StorageUnreachable, SweepFailed
from sweeps.keeper.failed_trials import failed_trials
from sweeps.keeper.trials.freezer import surplus_text
from sweeps.plan.blueprint import Blueprint
from sweeps.plan.view.overview import notice_text
from sweeps.run.callbacks import Callback
from sweeps.run.result_files import write_result_files
from sweeps.run.run_end import CONTINUE, check_run_end
from sweeps.run.run_on_ray import run_on_ray
from sweeps.run.run_result import RunResult
from sweeps.run.served_tokenizer import served_tokenizer
from sweeps.storage.open_storage import check_reachable
from sweeps.study.edges.stored_space import NEWER_RANGES
from sweeps.study.read_status import read_status
from sweeps.study.status import Status
from sweeps.study.study import peek, started_study
from sweeps.view.live_view import LiveView


def run_sweep(
    config: SweepConfig,
    plan: Callable[[], Blueprint],
    *,
    address: str | None,
    view: LiveView,
    callbacks: Sequence[Callback] = (),
) -> RunResult:
    """Run or continue the sweep until `trials` are finished in its study; `callbacks` get its reports.

    Raises a SweepError; nothing is written before data, model and storage have been checked.
    """
    if address is None:  # then a worker on this machine will load them
        read_ahead(config.model.name, config.model.revision)
    blueprint = plan()
    study_spec, url = blueprint.study_spec, storage_url(config.storage, config.run_folder)
    check_run_folder(config)
    check_reachable(url, config.run_folder)
    if (store := study_spec.checkpoint_store()) is not None:
        store.check()
    study = peek(url, config.name, study_spec.identity)
    before = Status(config.name, config.trials) if study is None else read_status(study, config.trials)
    from lora_runner.memory.planned_device import unused_gpu  # imports torch, as the plan did

    if (why := unused_gpu()) is not None:
        view.say(Text(f"warning: {why}", style="yellow"))
    if (newer := study_spec.space.context.get(NEWER_RANGES)) is not None:
        view.say(Text(newer))
    for notice in blueprint.data.notices:
        view.say(notice_text(notice))

    interrupted, errors = False, list[str]()
    if before.has_work:
        try:
            interrupted, errors = run_on_ray(
                config, blueprint, study, address=address, view=view, callbacks=callbacks
            )
        except StartFailed:
            with suppress(StorageUnreachable):
                _write_results(config, url)  # of the trials that ended before
            raise
    else:
        write_run_folder(config)
        if study is not None and (surplus := surplus_text(study_spec, study)) is not None:
            view.say(Text(surplus))

    stage = view.stages.stage("writing the results")
    try:
        status = read_status(started_study(url, config.name), config.trials)
        template = study_spec.context["chat_template"]
        with stage, served_tokenizer(blueprint.tokenizer, template, view.say) as tokenizer:
            _write_results(config, url, tokenizer)
    except StorageUnreachable as error:
        raise SweepFailed("\n".join([*errors, str(error), CONTINUE])) from None
    study = started_study(url, config.name)
    failures = failed_trials(study, config.run_folder)
    if not interrupted:
        num_failed = status.failed - before.failed
        check_run_end(config, study, status, num_failed=num_failed, errors=errors, failures=failures)
    added = status.finished - before.finished
    return RunResult(status, interrupted, added, config.run_folder, failures=failures)


def _write_results(config: SweepConfig, url: str, tokenizer: Path | None = None) -> None:
    replicates = peek(url, config.name + CONFIRM_SUFFIX)
    write_result_files(config, started_study(url, config.name), replicates, tokenizer=tokenizer)
