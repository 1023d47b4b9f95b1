"""`sweeps list`: the runs below a folder with state, trials, best loss and time, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError

from results.text.gaps import short_loss
from sweeps.cli.frame.default_run import RUNS, last_write, run_folders
from sweeps.config import RESOLVED_NAME
from sweeps.errors import RunFolderError, SweepError
from sweeps.storage.open_storage import STORAGE_ERRORS
from sweeps.study.lease import lease_of
from sweeps.study.progress_file import read_progress
from sweeps.study.read_status import read_status
from sweeps.study.status import Status
from sweeps.sweep import Sweep


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """One run folder."""

    path: str
    """As on the command line."""
    state: str
    """running | confirming | interrupted | finished | no trial | unreadable."""
    finished: int | None = None
    target: int | None = None
    best_loss: float | None = None
    """Nats per token; the mean over the seeds once the best was run again."""
    when: datetime | None = None
    """UTC: the last sign of life, also of a confirmation; before a first trial, when its file was written."""
    problem: str = ""
    """Why it cannot be read."""


def list_runs(folder: Path) -> list[RunLine]:
    """The runs directly below `folder`, or in the `runs/` of a project folder; reads only.

    Raises RunFolderError where there is no such folder.
    """
    if not folder.is_dir():
        raise RunFolderError(f"there is no folder {str(folder)!r}")
    if not run_folders(folder) and (folder / RUNS).is_dir():
        folder = folder / RUNS
    lines = [_read(run) for run in run_folders(folder)]
    lines += [_without_file(run) for run in folder.iterdir() if _lacks_its_file(run)]
    return sorted(lines, key=lambda line: (line.when is None, -_seconds(line), line.path))


def list_text(runs: Sequence[RunLine], folder: Path) -> str:
    """A table with a line for each run, and below it why a run cannot be read."""
    if not runs:
        return f"There is no run in {folder}/. `sweeps demo` makes one, `sweeps run` yours."
    rows = [("run", "state", "trials", "best loss", "last sign of life"), *map(_cells, runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    problems = [f"{run.path}: {run.problem}" for run in runs if run.problem]
    return "\n".join([line.rstrip() for line in lines] + ([""] if problems else []) + problems)


def list_data(runs: Sequence[RunLine]) -> list[dict[str, Any]]:
    """The same as JSON-ready builtins."""
    return [
        asdict(run) | {"when": None if run.when is None else run.when.isoformat(timespec="seconds")}
        for run in runs
    ]


def _cells(run: RunLine) -> tuple[str, ...]:
    trials = "" if run.finished is None else f"{run.finished} of {run.target}"
    loss = "" if run.best_loss is None else short_loss(run.best_loss)
    # A sweep file alone gives no sign of life.
    when = run.when.astimezone().strftime("%Y-%m-%d %H:%M") if run.when and run.state != "no trial" else ""
    return run.path, run.state, trials, loss, when


def _read(run: Path) -> RunLine:
    try:
        sweep = Sweep.load(run, check_files=False)
    except SweepError as error:
        return _unreadable(run, error)
    target = sweep.config.trials
    if sweep.run_folder.absolute() != run.absolute():  # a sweep file beside runs, which has its own elsewhere
        return RunLine(path=str(run), state="no trial", finished=0, target=target, when=_wrote(run))
    try:
        study = sweep.study()
        status, is_exhausted = read_status(study, target), bool(study.user_attrs.get("exhausted"))
        live = read_progress(run)
        return RunLine(
            path=str(run),
            state=_state(status, live, is_exhausted=is_exhausted),
            finished=status.finished,
            target=target,
            best_loss=_best_loss(sweep, status),
            when=datetime.now(UTC) if live is not None or status.is_live else _ended(sweep, status, run),
        )
    except RunFolderError:
        return RunLine(path=str(run), state="no trial", finished=0, target=target, when=_wrote(run))
    except (SweepError, *STORAGE_ERRORS, OptunaError) as error:
        return _unreadable(run, error)


def _state(status: Status, live: Status | None, *, is_exhausted: bool) -> str:
    if live is not None and live.task == "confirm":
        return "confirming"
    if live is not None or status.is_live:
        return "running"
    if not status.finished and not status.unfinished:
        return "no trial"
    return "interrupted" if status.has_work and not is_exhausted else "finished"


def _best_loss(sweep: Sweep, status: Status) -> float | None:
    if status.best is None:
        return None
    if (sweep.run_folder / "confirm").is_dir():  # only then: it imports scipy
        best = sweep.answer.best
        return None if best is None else best.loss.value
    return float(status.best["eval_loss"])


def _unreadable(run: Path, error: Exception) -> RunLine:
    # The text of a database driver may hold the URL with a password.
    is_ours = isinstance(error, SweepError)
    text = str(error).splitlines()[0] if is_ours else f"the study cannot be read ({type(error).__name__})"
    return RunLine(path=str(run), state="unreadable", when=_wrote(run), problem=text)


def _ended(sweep: Sweep, status: Status, run: Path) -> datetime | None:
    """When the sweep or its confirmation, whichever was later, gave its last sign of life."""
    confirmation = sweep.replicates()
    lease = None if confirmation is None else lease_of(confirmation)
    confirmed_at = None if lease is None else datetime.fromtimestamp(lease.seen, UTC)
    return max((at for at in (status.ended_at, confirmed_at) if at is not None), default=_wrote(run))


def _lacks_its_file(folder: Path) -> bool:
    """Whether a folder holds a study or trials, and no sweep file to read them with."""
    holds_results = any(
        (folder / name).exists() for name in ("study.db", "study.log", "trials", "trials.csv")
    )
    return holds_results and not (folder / RESOLVED_NAME).exists()


def _without_file(run: Path) -> RunLine:
    return RunLine(
        path=str(run), state="unreadable", when=_wrote(run), problem=f"it holds no {RESOLVED_NAME}"
    )


def _wrote(run: Path) -> datetime | None:
    return datetime.fromtimestamp(written, UTC) if (written := last_write(run)) else None


def _seconds(line: RunLine) -> float:
    return line.when.timestamp() if line.when else 0.0
