"""The commands that look at a sweep, running or ended: status, results, list, watch, dashboard, track."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.arguments import JsonOption, RunArgument, console, load_to_read
from sweeps.cli.frame.default_run import RUNS
from sweeps.console import say, shown_path, wrapped

if TYPE_CHECKING:
    from sweeps.loopback.server import LoopbackServer

app = typer.Typer()
PortOption = Annotated[
    int | None,
    typer.Option(min=1, max=65535, metavar="PORT", help="default: the first free port from 8080 on"),
]


@app.command(epilog="sweeps status runs/mine")
def status(path: RunArgument, as_json: JsonOption = False) -> None:
    """Show where a sweep stands, and its answer so far."""
    from sweeps.keeper.failed_trials import failed_trials
    from sweeps.study.status import as_plain
    from sweeps.view.status_text import status_lines

    sweep = load_to_read(path)
    now = sweep.status()
    if as_json:
        print(json.dumps(as_plain(now), indent=2))
        return
    folder = shown_path(sweep.run_folder)
    report = folder / "report.html"
    lines = status_lines(
        now,
        None if now.is_live else sweep.read_answer(folder),
        width=console.width,
        run_folder=shlex.quote(str(folder)),
        failures=failed_trials(sweep.study(), sweep.run_folder) if now.failed else None,
        report=str(report) if report.is_file() else "",
    )
    for line in lines:
        say(console, line)


@app.command(epilog="sweeps results runs/mine --top 5\nsweeps results runs/mine --csv > trials.csv")
def results(
    path: RunArgument,
    top: Annotated[int | None, typer.Option(min=1, metavar="N", help="only the N best trials")] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print all columns, as in trials.csv")] = False,
) -> None:
    """List the trials, best first.

    A loss in brackets was reached before the end of the training.
    """
    from results.render.trials_table import ranked, seeds_note, trials_table
    from results.tables import records_of

    if as_json and as_csv:
        raise typer.BadParameter("give one of --json and --csv")
    sweep = load_to_read(path)
    frame = ranked(sweep.tables().trials)
    shown = frame if top is None else frame.head(top)
    if as_json:
        print(json.dumps(records_of(shown), indent=2))
    elif as_csv:
        shown.to_csv(sys.stdout, index=False, lineterminator="\n")
    else:
        for line in trials_table(shown, width=console.width):
            say(console, line)
        if len(shown) < len(frame):
            console.print(f"{len(shown)} of {len(frame)} trials", style="dim", highlight=False)
        if note := seeds_note(sweep.read_answer()):
            say(console, wrapped(note), style="dim")


@app.command(epilog="sweeps watch runs/mine")
def watch(path: RunArgument, port: PortOption = None) -> None:
    """Follow a sweep on a web page of this machine.

    The page is at 127.0.0.1 only. It can also stop the sweep. Ctrl-C ends the page, not
    the sweep.
    """
    from sweeps.loopback.server import bind
    from sweeps.watch.app import WatchApp

    sweep = load_to_read(path)
    server = bind(port)
    server.set_app(WatchApp(sweep))
    _serve(server, f"Page of {sweep.config.name}: {server.url} (Ctrl-C ends the page, not the sweep)", "Page")


@app.command(epilog="sweeps dashboard runs/mine")
def dashboard(
    path: RunArgument,
    port: PortOption = None,
    writable: Annotated[bool, typer.Option("--writable", help="allow changes to the study")] = False,
) -> None:
    """Serve optuna-dashboard for the study, on 127.0.0.1 only."""
    from sweeps.dashboard.server import open_dashboard

    sweep = load_to_read(path)
    server = open_dashboard(sweep, port=port, writable=writable)
    mode = "writable: end it before the sweep goes on" if writable else "read-only"
    _serve(server, f"Dashboard of {sweep.config.name}: {server.url} ({mode}; Ctrl-C ends it)", "Dashboard")


@app.command(name="list", epilog="sweeps list\nsweeps list /data/runs --json")
def list_(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="folder with run folders, or a project folder")
    ] = RUNS,
    as_json: JsonOption = False,
) -> None:
    """List the runs in runs/, the newest first.

    With state, trials, best loss and last sign of life.
    """
    from sweeps.cli.list_runs import list_data, list_runs, list_text

    runs = list_runs(folder)
    print(json.dumps(list_data(runs), indent=2) if as_json else list_text(runs, folder))


def _serve(server: LoopbackServer, line: str, name: str) -> None:
    warnings.simplefilter(
        "ignore"
    )  # optuna-dashboard's plots warn of few trials, which its page itself shows
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Not through rich, which prints a line twice when it is interrupted half way.
        print(line, flush=True)
        server.serve()
    except KeyboardInterrupt:
        print(f"{name} closed.")


@app.command(epilog="sweeps track runs/mine --to mlflow")
def track(
    path: RunArgument,
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER", help="tensorboard, mlflow or wandb; default: tracking.to of the sweep file"
        ),
    ] = None,
) -> None:
    """Bring TensorBoard, MLflow or W&B up to date, a run per trial."""
    for tracker, trials in load_to_read(path).track(*to or ()).items():
        console.print(f"{tracker}: {trials} trials brought up to date", highlight=False)
