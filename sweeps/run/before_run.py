"""What is looked at before anything is loaded: whether the sweep runs already, and whether it is finished.

Imports neither torch nor Ray, so that both are answered at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna

from results.verdict.replicates import CONFIRM_SUFFIX
from sweeps.config import RESOLVED_NAME, SweepConfig, load_sweep, storage_url
from sweeps.confirm.set_aside import CONFIRM_SUFFIXES
from sweeps.console import shown_path
from sweeps.errors import ConfigError, StudyHeld
from sweeps.run.run_result import RunResult
from sweeps.study.lease import DriverProcess, Lease, lease_of
from sweeps.study.read_status import read_status
from sweeps.study.status import Status
from sweeps.study.study import peek

RESULT_FILES = ("trials.csv", "trials.parquet", "reports.parquet", "verdict.json", "report.html")
BEST_FILE = "best/config.yaml"


def refuse_if_running(config: SweepConfig) -> None:
    """StudyHeld if a live process of this machine works on the sweep or its confirmation.

    A holder on another machine is waited for later (`run_on_ray.py`).
    """
    for name, lease in leases(config).items():
        if lease.released or lease.owner.is_same_process(DriverProcess.current("")):
            continue
        if lease.owner.is_alive:
            what = "is running already" if name == config.name else "is being confirmed"
            folder = shown_path(config.run_folder)
            raise StudyHeld(
                f"the sweep {config.name!r} {what} (process {lease.owner.pid} on {lease.owner.host}); "
                f"`sweeps status {folder}` shows it, `sweeps stop {folder}` ends it"
            )


def leases(config: SweepConfig) -> dict[str, Lease]:
    """The leases of the sweep's studies, by name: its own, and those of its confirmation."""
    url = storage_url(config.storage, config.run_folder)
    names = (config.name, *(config.name + suffix for suffix in CONFIRM_SUFFIXES))
    studies = {name: study for name in names if (study := peek(url, name)) is not None}
    return {name: lease for name, study in studies.items() if (lease := lease_of(study)) is not None}


def known_status(config: SweepConfig) -> Status:
    """What the sweep's study holds, to be shown until its keeper answers."""
    study = peek(storage_url(config.storage, config.run_folder), config.name)
    return Status(config.name, config.trials) if study is None else read_status(study, config.trials)


def known_confirmation(config: SweepConfig, trials: int | None, *, anew: bool) -> Status:
    """The same of its confirmation; how many runs there will be is known only if `trials` is given."""
    name, target = config.name + CONFIRM_SUFFIX, trials or 0
    study = None if anew else peek(storage_url(config.storage, config.run_folder), name)
    return Status(name, target, task="confirm") if study is None else read_status(study, target)


def finished_run(config: SweepConfig) -> RunResult | None:
    """The result of a sweep in which nothing is left to do, as it stands in its study and its files.

    None when something is left to run, or must be looked at first: the sweep file says something else than
    the run folder's, a local file of model or data is newer than the last trial, or a result file is missing
    or older than it.
    """
    folder, url = config.run_folder, storage_url(config.storage, config.run_folder)
    if not (folder / RESOLVED_NAME).is_file() or not _is_same(config):
        return None
    study = peek(url, config.name)
    if study is None:
        return None
    status = read_status(study, config.trials)
    if status.has_work or status.best is None or status.failed:
        return None
    last = _last_end([study, peek(url, config.name + CONFIRM_SUFFIX)])
    if any(file.stat().st_mtime > last for file in _inputs(config)):
        return None
    results = [folder / name for name in (*RESULT_FILES, BEST_FILE)]
    if not all(file.is_file() for file in results) or any(f.stat().st_mtime < last for f in results[:-1]):
        return None
    return RunResult(status, interrupted=False, added=0, run_folder=folder)


def _is_same(config: SweepConfig) -> bool:
    try:
        kept = load_sweep(config.run_folder, check_files=False)
    except ConfigError:
        return False
    return kept.model_dump() == config.model_dump()


def _last_end(studies: Sequence[optuna.Study | None]) -> float:
    """Seconds since the epoch; Optuna stores local time without a zone."""
    ends = [
        trial.datetime_complete.timestamp()
        for study in studies
        if study is not None
        for trial in study.get_trials(deepcopy=False)
        if trial.datetime_complete is not None
    ]
    return max(ends, default=0.0)


def _inputs(config: SweepConfig) -> Iterator[Path]:
    """The local files of model and data."""
    for name in (config.model.name, config.data.train, config.data.eval):
        path = Path(name) if isinstance(name, str) else None
        if path is not None and path.is_file():
            yield path
        elif path is not None and path.is_dir():
            yield from (file for file in path.rglob("*") if file.is_file())
