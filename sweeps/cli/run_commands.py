"""The commands that run and move a sweep: demo, run, confirm, stop, move."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.arguments import (
    AddressOption,
    MarginOption,
    SetOption,
    SweepArgument,
    console,
    load_to_read,
    load_to_run,
)
from sweeps.console import say

if TYPE_CHECKING:
    from sweeps.sweep import Sweep

app = typer.Typer()
PANEL = "Make and run a sweep"
INTERRUPTED = 130
"""The exit code of a command that was interrupted."""


@app.command(rich_help_panel=PANEL)
def demo(
    trials: Annotated[int, typer.Option(help="number of trials to finish")] = 16,
    max_steps: Annotated[int, typer.Option(help="optimizer steps of a full trial")] = 40,
    output: Annotated[Path, typer.Option(help="folder in which the run folder is made")] = Path("runs"),
) -> None:
    """Run a small sweep on a model that is built here and real text, without a network."""
    say(console, "Preparing the demo's model and dataset (a minute or two the first time) ...")
    from sweeps.demo.demo_sweep import demo_config
    from sweeps.sweep import Sweep

    sweep = Sweep(demo_config(trials=trials, max_steps=max_steps, output=output))
    _run(sweep, None)
    say(
        console,
        f"How certain is that? `sweeps confirm {sweep.run_folder}` runs the best trial, the guideline "
        "default and the guideline rows' values again on new seeds; with --no-rows --trials 6 it takes a "
        "minute.",
    )


@app.command(rich_help_panel=PANEL)
def run(path: SweepArgument, settings: SetOption = None, address: AddressOption = None) -> None:
    """Run a sweep. After an interruption the same command continues it; finished trials count."""
    _run(load_to_run(path, settings), address)


def _run(sweep: Sweep, address: str | None) -> None:
    from results.render.terminal import print_verdict

    result = sweep.run(address=address, console=console)
    status = result.status
    console.print(
        f"{status.finished} of {status.target} trials finished, {result.added} of them in this run."
    )
    if result.failures is not None:
        say(console, f"Not counted: {result.failures}")
    if result.interrupted:
        console.print("Interrupted; running trials were checkpointed. Run the same command to continue.")
        raise typer.Exit(INTERRUPTED)
    if status.best is not None:
        print_verdict(sweep.verdict(write=False), console)
    say(console, f"Results: {result.run_folder}")


@app.command(rich_help_panel=PANEL)
def confirm(
    path: SweepArgument,
    best: Annotated[int, typer.Option(help="number of best trials to run again")] = 1,
    rows: Annotated[
        bool,
        typer.Option(help="also run the value of each tested guideline row, all else as in the best trial"),
    ] = True,
    trials: Annotated[int | None, typer.Option(help="budget: runs of the whole confirmation")] = None,
    hours: Annotated[
        float | None, typer.Option(help="budget: hours after which no new run is started")
    ] = None,
    margin: MarginOption = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="start over; earlier runs are kept under another name")
    ] = False,
    settings: SetOption = None,
    address: AddressOption = None,
) -> None:
    """Run the best trial, the guideline default and guideline values again on new seeds.

    Ends when each configuration is known to be worse than the best or no different,
    or when the budget is used up. The same command continues, also with a larger
    budget.
    """
    from results.render.terminal import print_verdict

    result = load_to_run(path, settings).confirm(
        best=best,
        rows=rows,
        trials=trials,
        hours=hours,
        margin=None if margin is None else margin / 100,  # checked together with the others
        anew=anew,
        address=address,
        console=console,
    )
    progress = result.progress
    console.print(progress.counts, highlight=False)
    for note in progress.notes:
        console.print(note, highlight=False)
    if progress.interrupted:
        console.print("Interrupted; running trials were checkpointed. Run the same command to continue.")
        raise typer.Exit(INTERRUPTED)
    print_verdict(result.verdict, console)
    if not progress.clear:
        console.print(
            "Some configurations cannot be told from the best yet; run again with more --trials or --hours."
        )
    say(console, f"Results: {result.run_folder}")


@app.command(rich_help_panel=PANEL)
def stop(path: SweepArgument) -> None:
    """Ask a running sweep to checkpoint its trials and end; `sweeps run` continues it."""
    lease = load_to_read(path).stop()
    say(console, f"asked process {lease.owner.pid} to stop: it checkpoints its running trials and ends")


@app.command(rich_help_panel=PANEL)
def move(
    path: SweepArgument,
    to: Annotated[
        str, typer.Option("--to", metavar="STORAGE", help="database URL, env:NAME or journal:PATH")
    ],
) -> None:
    """Copy a sweep that is not running to another storage; the old one stays as it is."""
    moved = load_to_read(path).move(to)
    for name, trials in moved.studies.items():
        say(console, f"copied {name}: {trials} trials, each compared with the original")
    say(console, "To continue the sweep there, put this line into its file:")
    print(f"storage: {json.dumps(moved.storage, ensure_ascii=False)}")
