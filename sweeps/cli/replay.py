"""`sweeps replay`: a trial trained again from its record, compared bit by bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from files_and_text.plain_values import plain
from sweeps.cli.arguments import (
    JsonOption,
    RunArgument,
    SetOption,
    console,
    load_to_read,
    load_to_run,
)
from sweeps.cli.frame.default_run import only_run
from sweeps.errors import ConfigError, ReplayError

if TYPE_CHECKING:
    from sweeps.sweep import Sweep

app = typer.Typer()
DIFFERENT = 1
"""The exit code when a value is not the recorded one."""


@app.command(epilog="sweeps replay runs/mine 3\nsweeps replay 3 --from 40")
def replay(
    path: RunArgument,
    trial: Annotated[int | None, typer.Argument(metavar="N", help="number of the trial")] = None,
    from_percent: Annotated[
        int | None,
        typer.Option(
            "--from", metavar="PERCENT", help="go on from the checkpoint kept at this percent of the budget"
        ),
    ] = None,
    of_confirmation: Annotated[
        bool, typer.Option("--confirmation", help="a run of `sweeps confirm` instead of a trial")
    ] = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a trial again, alone, and compare it bit by bit.

    Exit code 0: every recorded value is equal. 1: the first value that differs
    is named. 2: it cannot be trained again. Writes nothing into the run folder.
    Where model or data have moved, say so by --set model.name=PATH (data.train,
    data.eval); what they hold must be the same.
    """
    from sweeps.replay.replay_text import print_replay

    path, trial = _run_and_trial(path, trial)
    with _os_errors(trial), console.status(f"trial {trial}: checking model and data") as status:
        answer = _load(path, settings).replay(
            trial,
            from_percent=from_percent,
            of_confirmation=of_confirmation,
            progress=lambda text: status.update(f"trial {trial}: {text}"),
        )
    if as_json:
        first = answer.first_difference
        values = {"is_equal": answer.is_equal, "first_difference": None if first is None else asdict(first)}
        print(json.dumps(plain(asdict(answer) | values), indent=2, allow_nan=False))
    else:
        print_replay(answer, console)
    if not answer.is_equal:
        raise typer.Exit(DIFFERENT)


def _run_and_trial(path: Path, trial: int | None) -> tuple[Path, int]:
    """A number alone is that of the trial, of the only run."""
    if trial is not None:
        return path, trial
    if not path.name.isdigit() or path.exists():
        raise ConfigError(["sweeps replay needs N: number of the trial"])
    return only_run("sweeps replay"), int(path.name)


def _load(path: Path, settings: list[str] | None) -> Sweep:
    """The sweep; where model or data are gone, the error also says how to name their new place."""
    try:
        return load_to_run(path, settings)
    except ConfigError as error:
        load_to_read(path)  # raises the same error when the file itself is wrong
        hint = (
            "where model or data have moved, a replay is told by --set model.name=PATH, data.train, data.eval"
        )
        raise ConfigError([*error.problems, hint]) from None


@contextmanager
def _os_errors(trial: int) -> Iterator[None]:
    """A file or disk that cannot be used says nothing about the trial's numbers."""
    try:
        yield
    except OSError as error:
        raise ReplayError(f"trial {trial} could not be replayed, so nothing was compared: {error}") from error
