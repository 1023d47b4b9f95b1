"""A planned sweep on Ray: start or join Ray, open the keeper, train on the workers, show progress."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import optuna
import ray

from files_and_text.numbers import plural
from sweeps.artifacts.run_folder import write_run_folder
from sweeps.config import RESOLVED_NAME, SweepConfig, storage_url
from sweeps.errors import SweepFailed
from sweeps.fleet.endpoints import open_endpoints
from sweeps.fleet.fleet_size import fleet_size
from sweeps.fleet.ray_start import start_ray
from sweeps.fleet.run_fleet import run_fleet
from sweeps.fleet.signals import stop_on_signals
from sweeps.plan.blueprint import Blueprint
from sweeps.run.callbacks import Callback, ReportFeed
from sweeps.run.progress_writer import ProgressWriter
from sweeps.run.run_end import CONTINUE
from sweeps.study.lease import DriverProcess, refuse_if_held
from sweeps.study.status import Status
from sweeps.tracking.follow import following
from sweeps.view.live_view import LiveView


@contextmanager
def _ray_errors() -> Iterator[None]:
    """SweepFailed when Ray itself fails."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("ray."):
            raise
        line = next(iter(str(error).splitlines()), "")
        raise SweepFailed(
            f"Ray failed during the sweep ({type(error).__name__}: {line})\n{CONTINUE}"
        ) from error


@_ray_errors()
def run_on_ray(
    config: SweepConfig,
    blueprint: Blueprint,
    study: optuna.Study | None,
    *,
    address: str | None,
    view: LiveView,
    callbacks: Sequence[Callback] = (),
) -> tuple[bool, list[str]]:
    """Whether the run was interrupted, and the errors for which it could not be completed.

    `study` is the present one, None before the first run. Raises SweepFailed when Ray itself fails,
    StartFailed when no worker can start, StudyHeld when another run works on the study.
    """
    owner = DriverProcess.current(secrets.token_hex(8))
    if study is not None and (lease := refuse_if_held(study, owner)) is not None:
        view.say(
            f"The study was held by {lease.holder()}; waiting up to "
            f"{config.reliability.lease_seconds:g} s for a sign of life."
        )
    view.input_is_checked()
    with view.stages.stage("starting Ray" if address is None else f"joining Ray at {address}"):
        start_ray(address)
    size = fleet_size(config.workers, config.gpus_per_worker, may_grow=address is not None)
    if not (config.run_folder / RESOLVED_NAME).is_file():
        write_run_folder(config)  # from here on the sweep exists
    url = storage_url(config.storage, config.run_folder)
    # Tracking begins once the study is ours and ends after the keeper is closed, so it delays nothing.
    with ExitStack() as tracking, ExitStack() as opened:
        with view.stages.stage("opening the study"):
            endpoints = opened.enter_context(open_endpoints(blueprint.study_spec, url, owner))
        write_run_folder(config)  # only who holds the study may change what the last run wrote
        tracking.enter_context(following(config, view.say, stage=view.stages.stage))
        workers, seats = plural(size.now, "worker"), plural(blueprint.worker_spec.seats, "seat")
        view.add_event(f"{workers} with {seats}{' each' if size.now > 1 else ''}")
        keeper = endpoints.keeper

        def ask(seen: int) -> Status | None:
            status = ray.get(keeper.status.remote(seen), timeout=60)
            return None if status is None else view.since_start(status)

        progress = ProgressWriter(ask, config.run_folder, owner, view.stages)
        opened.callback(progress.close)
        following_keeper = view.follow(progress, lambda: ray.get(keeper.request_stop.remote(), timeout=60))
        feed = ReportFeed(callbacks, view.say, view.stop_wanted).follow(
            lambda seen: ray.get(keeper.reports.remote(seen), timeout=60)
        )
        with following_keeper, feed, stop_on_signals(view.stop_wanted):
            errors = run_fleet(endpoints, blueprint.worker_spec, size, view.is_ending)
        if (start_error := ray.get(keeper.start_error.remote(), timeout=60)) is not None:
            raise start_error
        errors += ray.get(keeper.errors.remote(), timeout=60)
        return view.stop_wanted.is_set(), errors
