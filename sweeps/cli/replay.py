"""`sweeps replay`: a trial trained again from its record, compared bit by bit."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from sweeps.cli.arguments import JsonOption, SweepArgument, console, load_to_run

app = typer.Typer()
DIFFERENT = 1
"""The exit code when a value is not the recorded one."""


@app.command(rich_help_panel="Check, write and use the results")
def replay(
    path: SweepArgument,
    trial: Annotated[int, typer.Argument(metavar="N", help="number of the trial")],
    from_percent: Annotated[
        int | None,
        typer.Option(
            "--from", metavar="PERCENT", help="go on from the checkpoint kept at this percent of the budget"
        ),
    ] = None,
    of_confirmation: Annotated[
        bool, typer.Option("--confirmation", help="a run of `sweeps confirm` instead of a trial")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a trial again, alone, and compare it with its record bit by bit.

    Exit code 0: every loss and the digest of the adapter are equal. 1: the first value that
    differs is named. 2: it cannot be trained again. Writes nothing into the run folder.
    """
    from sweeps.replay.replay_text import print_replay

    with console.status(f"trial {trial}: checking model and data") as status:
        answer = load_to_run(path, None).replay(
            trial,
            from_percent=from_percent,
            of_confirmation=of_confirmation,
            progress=lambda text: status.update(f"trial {trial}: {text}"),
        )
    if as_json:
        first = answer.first_difference
        values = {"is_equal": answer.is_equal, "first_difference": None if first is None else asdict(first)}
        print(json.dumps(asdict(answer) | values, indent=2))
    else:
        print_replay(answer, console)
    if not answer.is_equal:
        raise typer.Exit(DIFFERENT)
