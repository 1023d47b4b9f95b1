"""The commands that look at a sweep, running or over: results, dashboard, track."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from sweeps.sweep import Sweep

app = typer.Typer()
console = Console()

FileArgument = Annotated[Path, typer.Argument(help="a sweep file or a run folder")]


def _load(path: Path) -> Sweep:
    from sweeps.sweep import Sweep

    return Sweep.load(path, check_files=False)


@app.command()
def results(
    path: FileArgument,
    top: Annotated[int | None, typer.Option(min=1, help="only the best so many trials")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="machine-readable")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="all columns, as in trials.csv")] = False,
) -> None:
    """The trials, best first; a loss in brackets is not one of the full budget."""
    from results.frames import records_of
    from results.trials_text import ranked, trials_table

    if as_json and as_csv:
        raise typer.BadParameter("give one of --json and --csv")
    frame = ranked(_load(path).tables().trials)
    shown = frame if top is None else frame.head(top)
    if as_json:
        print(json.dumps(records_of(shown), indent=2))
    elif as_csv:
        shown.to_csv(sys.stdout, index=False, lineterminator="\n")
    else:
        console.print(trials_table(shown, width=console.width))
        if len(shown) < len(frame):
            console.print(f"{len(shown)} of {len(frame)} trials", style="dim", highlight=False)


@app.command()
def dashboard(
    path: FileArgument,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="default: the first free one from 8080 on")
    ] = None,
    writable: Annotated[bool, typer.Option("--writable", help="let it change the study")] = False,
) -> None:
    """optuna-dashboard on the study, on this machine only, also of a running sweep."""
    from sweeps.dashboard import open_dashboard

    sweep = _load(path)
    server = open_dashboard(sweep, port=port, writable=writable)
    mode = "writable: end it before the sweep goes on" if writable else "read-only"
    where = f"Dashboard of {sweep.config.name}: {server.url} ({mode}; Ctrl-C ends it)"
    warnings.simplefilter("ignore")  # a page's plots warn of few trials, which the page shows
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        # Not through rich, which an interrupt half way makes print a line twice.
        print(where, flush=True)
        server.serve()
    except KeyboardInterrupt:
        print("Dashboard closed.")


@app.command()
def track(
    path: FileArgument,
    to: Annotated[
        list[str] | None, typer.Option(help="tensorboard, mlflow or wandb; default: the file's tracking.to")
    ] = None,
) -> None:
    """Bring TensorBoard, MLflow or Weights & Biases up to date: one run per trial, never two."""
    for tracker, trials in _load(path).track(*to or ()).items():
        console.print(f"{tracker}: {trials} trials brought up to date", highlight=False)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
