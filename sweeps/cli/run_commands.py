"""The commands that run and move a sweep: demo, run, confirm, stop, move."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from sweeps.cli.arguments import (
    AddressOption,
    JsonOption,
    MarginOption,
    RunArgument,
    SetOption,
    SweepArgument,
    console,
    load_to_read,
    load_to_run,
)
from sweeps.console import say, shown_path
from sweeps.errors import ConfigError

if TYPE_CHECKING:
    from sweeps.sweep import Sweep

app = typer.Typer()
INTERRUPTED = 130
"""The exit code of a command that was interrupted."""


@app.command(epilog="sweeps demo --trials 4 --max-steps 10")
def demo(
    trials: Annotated[int, typer.Option(metavar="N", help="number of trials to finish")] = 16,
    max_steps: Annotated[int, typer.Option(metavar="N", help="optimizer steps of a full trial")] = 40,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="folder in which the run folder is made")
    ] = Path("runs"),
) -> None:
    """Run a small sweep on real text in minutes, without a network."""
    say(console, "Preparing the demo's model and dataset (a minute or two the first time) ...")
    from sweeps.demo.demo_sweep import demo_config
    from sweeps.sweep import Sweep

    sweep = Sweep(demo_config(trials=trials, max_steps=max_steps, output=output))
    _run(sweep, None)


@app.command(epilog="sweeps run sweep.yaml\nsweeps run runs/mine --set trials=32")
def run(path: SweepArgument, settings: SetOption = None, address: AddressOption = None) -> None:
    """Run a sweep, or continue it.

    After an interruption the same command continues it; finished trials count.
    """
    _run(load_to_run(path, settings), address)


def _run(sweep: Sweep, address: str | None) -> None:
    from results.render.answer_block import print_answer
    from results.text.answer import done_text
    from results.text.frozen import kept_text

    with _ending_at_once(sweep, "run"):
        result = sweep.run(address=address, console=console)
    if result.failures is not None:
        say(console, f"Not counted: {result.failures}")
    if result.interrupted:
        say(console, "Stopped. What the running trials have done is kept.")
    answer = sweep.answer
    done = [f"{done_text(answer.run)}."]
    if not result.added:
        done.append("No trial ended in this run." if result.interrupted else "Nothing was left to run.")
    elif result.added != answer.run.finished:
        done.append(f"{result.added} of them in this run.")
    if kept := kept_text(0 if result.interrupted else len(result.status.frozen_trials)):
        done.append(kept)
    print_answer(console, answer, done=done, report=_report(result.run_folder))
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


@contextmanager
def _ending_at_once(sweep: Sweep, command: str) -> Iterator[None]:
    """On a second Ctrl-C: say what is kept, and end without the seconds that Ray takes to shut down.

    Ray ends its processes when this one is gone; what was not recorded is done again.
    """
    try:
        yield
    except KeyboardInterrupt:
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            raise
        folder = shlex.quote(str(shown_path(sweep.run_folder)))
        say(console, f"Ended at once. Trials go on from their last checkpoints: sweeps {command} {folder}")
        sys.stdout.flush()
        os._exit(INTERRUPTED)


def _report(run_folder: Path) -> str:
    """Path of the report as a person types it, "" where there is none."""
    from results.report.page import REPORT_FILE

    path = run_folder / REPORT_FILE
    return str(shown_path(path)) if path.is_file() else ""


@app.command(
    epilog="sweeps confirm runs/mine --no-rows --trials 6\nsweeps confirm runs/mine --trials 60 --plan"
)
def confirm(
    path: RunArgument,
    best: Annotated[int, typer.Option(metavar="N", help="number of best trials to run again")] = 1,
    rows: Annotated[
        bool,
        typer.Option(help="also run the value of each tested guideline row, all else as in the best trial"),
    ] = True,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="budget: runs of the whole confirmation")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(metavar="HOURS", help="budget: hours after which no new run is started")
    ] = None,
    margin: MarginOption = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="start over; earlier runs are kept under another name")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="only show what would run and what it could see")
    ] = False,
    as_json: JsonOption = False,
    settings: SetOption = None,
    address: AddressOption = None,
) -> None:
    """Run the best and the guideline default again on new seeds.

    With rows, also the values of guideline rows.

    Ends when each configuration is known to be worse than the best or no different,
    or when the budget is used up. The same command continues, also with a larger
    budget.
    """
    from results.render.answer_block import print_answer
    from results.render.terminal import parameter_table

    share = None if margin is None else margin / 100  # checked together with the others
    sweep = load_to_run(path, settings)
    if as_json and not plan:
        raise ConfigError(["--json is for what is only planned: add --plan"])
    if plan:
        from sweeps.confirm.power_plan import plan_lines

        planned = sweep.plan_confirm(
            best=best, rows=rows, trials=trials, hours=hours, margin=share, anew=anew
        )
        if as_json:
            print(json.dumps(planned.to_dict(), indent=2))
            return
        for text in plan_lines(planned):
            say(console, text)
        return
    with _ending_at_once(sweep, "confirm"):
        result = sweep.confirm(
            best=best,
            rows=rows,
            trials=trials,
            hours=hours,
            margin=share,
            anew=anew,
            address=address,
            console=console,
        )
    progress = result.progress
    for note in progress.notes:
        say(console, note)
    if progress.interrupted:
        say(console, progress.counts)
        say(console, "Stopped. What the running trials have done is kept; the same command continues.")
        raise typer.Exit(INTERRUPTED)
    status = progress.status
    done = [f"{status.finished} of at most {status.target} runs on new seeds."]
    if progress.added - progress.tuned != status.finished:
        done.append(f"{progress.added - progress.tuned} of them in this call.")
    if progress.tuned:
        done.append(f"{progress.tuned} before them tuned one rate.")
    answer = sweep.read_answer(margin=share)
    if rows:
        for line in [*parameter_table(answer, width=console.width), Text()]:
            say(console, line)
    print_answer(console, answer, done=done, report=_report(result.run_folder))


@app.command(epilog="sweeps stop runs/mine")
def stop(path: RunArgument) -> None:
    """Ask a running sweep to save its trials and end.

    Waits for that; Ctrl-C ends the waiting alone. `sweeps run` continues the sweep.
    """
    from sweeps.run.stopping import stopped_lines, stopping_text, wait_for_end

    sweep = load_to_read(path)
    before = sweep.status()
    lease = sweep.stop()
    say(console, stopping_text(before))
    try:
        has_ended = wait_for_end(lease)
    except KeyboardInterrupt:
        has_ended = False
    if not has_ended:
        say(
            console,
            f"Process {lease.owner.pid} is still stopping; `sweeps status` says when it is done.",
        )
        return
    for line in stopped_lines(sweep.status()):
        say(console, line)


@app.command(epilog="sweeps move runs/mine --to journal:/shared/study.log")
def move(
    path: RunArgument,
    to: Annotated[
        str, typer.Option("--to", metavar="STORAGE", help="database URL, env:NAME or journal:PATH")
    ],
) -> None:
    """Copy the study of an ended sweep to another storage.

    The old storage stays as it is.
    """
    moved = load_to_read(path).move(to)
    for name, trials in moved.studies.items():
        say(console, f"copied {name}: {trials} trials, each compared with the original")
    say(console, "To continue the sweep there, put this line into its file:")
    print(f"storage: {json.dumps(moved.storage, ensure_ascii=False)}")
