"""The command line: parse, call a verb of `Sweep`, print, exit with a code.

Exit codes: 0 done, 1 the sweep failed, 2 bad input (nothing written, nothing lost), 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sweeps.cli.watch_commands import app as watching
from sweeps.errors import ConfigError, SweepError

if TYPE_CHECKING:
    from sweeps.sweep import Sweep

app = typer.Typer(
    help="Hyperparameter sweeps for QLoRA, seeded from guideline tables and checked against them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
INTERRUPTED = 130

FileArgument = Annotated[Path, typer.Argument(help="a sweep file or a run folder")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE over the file's own, such as training.max_steps=50"),
]
MarginOption = Annotated[
    float | None,
    typer.Option(
        help="difference that does not matter, percent of the loss; by default the confirmation's, else 0.5"
    ),
]


def _share(margin: float | None) -> float | None:
    if margin is None:
        return None
    if not 0 < margin <= 50:
        rule = f"the margin is above 0 and at most 50 percent of the loss; got {margin:g}"
        raise ConfigError([rule])
    return margin / 100


@contextmanager
def _files() -> Iterator[None]:
    """A place that cannot be written or read is bad input, said in one line."""
    from results.errors import ResultsError

    try:
        yield
    except OSError as error:
        place = error.filename2 or error.filename
        if place is None:
            raise
        raise ResultsError(f"{place}: {error.strerror}") from error


def _load(path: Path, settings: list[str] | None, *, check_files: bool = True) -> Sweep:
    from sweeps.config import parse_override
    from sweeps.sweep import Sweep

    overrides = dict(parse_override(text) for text in settings or [])
    return Sweep.load(path, overrides, check_files=check_files)


@app.command()
def demo(
    trials: Annotated[int, typer.Option(help="finished trials of the whole demo")] = 16,
    max_steps: Annotated[int, typer.Option(help="optimizer steps of a full trial")] = 40,
    output: Annotated[Path, typer.Option(help="folder for the run folder")] = Path("runs"),
) -> None:
    """The whole job on a small embedded model and real text, without a network."""
    console.print("Preparing the embedded base and dataset (a minute or two the first time) ...")
    from sweeps.demo.run import demo_config
    from sweeps.sweep import Sweep

    sweep = Sweep(demo_config(trials=trials, max_steps=max_steps, output=output))
    _run(sweep, None)
    console.print(
        f"How sure is that? `sweeps confirm {sweep.run_folder}` runs the best, the guideline default and the "
        "rows' own values again on new seeds; with --no-rows --trials 6 it takes a minute.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command()
def init(
    model: Annotated[str, typer.Option(help="hub id or local folder")],
    train: Annotated[str, typer.Option(help="training file, folder or hub id")],
    path: Annotated[Path, typer.Argument(help="the sweep file to write")] = Path("sweep.yaml"),
    scenario: Annotated[str, typer.Option(help="general, instruction, complex, short, long")] = "general",
    evaluate: Annotated[str | None, typer.Option("--eval", help="evaluation file, folder or hub id")] = None,
    max_steps: Annotated[int | None, typer.Option(help="optimizer steps of a full trial")] = None,
    train_embeddings: Annotated[bool, typer.Option(help="train embeddings and lm_head too")] = False,
) -> None:
    """Write a commented sweep.yaml seeded from the tables."""
    from sweeps.cli.init_file import init_sweep

    def count(name: str) -> float:
        from lora_runner.base.load_model import BaseSpec, check_weights, count_parameters

        base = BaseSpec(model=name)
        check_weights(base)
        return float(count_parameters(base))

    init_sweep(
        model,
        train,
        path,
        scenario=scenario,
        eval=evaluate,
        max_steps=max_steps,
        train_embeddings=train_embeddings,
        count_parameters=count,
    )
    console.print(f"wrote {path}; next: sweeps plan {path}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def plan(
    path: FileArgument,
    settings: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="machine-readable")] = False,
    show_record: Annotated[
        int | None,
        typer.Option(metavar="N", help="print training record N as the model sees it, and nothing else"),
    ] = None,
) -> None:
    """Validate; show the space with each range's source, seats, time and memory estimates."""
    from sweeps.cli.show_record import print_record
    from sweeps.plan.plan_text import plan_view
    from sweeps.plan.time_estimate import measure_matrix_flops

    sweep = _load(path, settings)
    if show_record is not None:
        record = sweep.show_record(show_record)
        if as_json:
            print(json.dumps(asdict(record), indent=2))
        else:
            print_record(record, console)
        return
    blueprint = sweep.plan()
    if as_json:
        for warning in blueprint.data.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(json.dumps(blueprint.summary(), indent=2, default=str))
    else:
        console.print(plan_view(blueprint, measure_matrix_flops()))


@app.command()
def run(
    path: FileArgument,
    settings: SetOption = None,
    address: Annotated[str | None, typer.Option(help="a running Ray: auto or HOST:PORT")] = None,
) -> None:
    """Run, or go on after any interruption: the same command; trials already finished count."""
    _run(_load(path, settings), address)


def _run(sweep: Sweep, address: str | None) -> None:
    from results.render.terminal import print_verdict

    result = sweep.run(address=address, console=console)
    status = result.status
    console.print(
        f"{status.finished} of {status.target} trials finished, {result.added} of them in this run."
    )
    if result.failures is not None:
        console.print(f"Not counted: {result.failures}", highlight=False, markup=False, soft_wrap=True)
    if result.interrupted:
        console.print("Interrupted; running trials were checkpointed. Run the same command to go on.")
        raise typer.Exit(INTERRUPTED)
    if status.best is not None:
        print_verdict(sweep.verdict(write=False), console)
    console.print(f"Results: {result.run_folder}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def confirm(
    path: FileArgument,
    best: Annotated[int, typer.Option(help="of the best trials to run again")] = 1,
    rows: Annotated[
        bool, typer.Option(help="each tested row's own value too, with everything else at the best")
    ] = True,
    trials: Annotated[int | None, typer.Option(help="runs of the whole confirmation")] = None,
    hours: Annotated[float | None, typer.Option(help="after which no run is started any more")] = None,
    margin: MarginOption = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="start over; earlier runs are kept under another name")
    ] = False,
    settings: SetOption = None,
    address: Annotated[str | None, typer.Option(help="a running Ray: auto or HOST:PORT")] = None,
) -> None:
    """Run the best, the guideline default and the rows' own values again on new seeds, until it is clear."""
    from results.render.terminal import print_verdict

    result = _load(path, settings).confirm(
        best=best,
        rows=rows,
        trials=trials,
        hours=hours,
        margin=None if margin is None else margin / 100,  # checked with the others
        anew=anew,
        address=address,
        console=console,
    )
    progress = result.progress
    console.print(progress.counts, highlight=False)
    for note in progress.notes:
        console.print(note, highlight=False)
    if progress.interrupted:
        console.print("Interrupted; runs under way were checkpointed. Run the same command to go on.")
        raise typer.Exit(INTERRUPTED)
    print_verdict(result.verdict, console)
    if not progress.clear:
        console.print("Not every arm is told from the best yet: more --trials or --hours go on from here.")
    console.print(f"Results: {result.run_folder}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def status(
    path: FileArgument, as_json: Annotated[bool, typer.Option("--json", help="machine-readable")] = False
) -> None:
    """Trials by state, the best so far and the guideline default, also of a running sweep."""
    from sweeps.fleet.live_view import status_table
    from sweeps.study.status import as_plain

    now = _load(path, None, check_files=False).status()
    if as_json:
        print(json.dumps(as_plain(now), indent=2))
    else:
        console.print(status_table(now, []))


@app.command()
def stop(path: FileArgument) -> None:
    """Ask a running sweep to checkpoint its trials and end; the same `sweeps run` goes on later."""
    lease = _load(path, None, check_files=False).stop()
    console.print(
        f"asked process {lease.owner.pid} to stop; it checkpoints what is running and ends.", highlight=False
    )


@app.command()
def move(
    path: FileArgument,
    to: Annotated[str, typer.Option("--to", help="a database's URL, env:NAME or journal:PATH")],
) -> None:
    """Copy a sweep that is not running to another storage; the old one stays as it is."""
    moved = _load(path, None, check_files=False).move(to)
    for name, trials in moved.studies.items():
        console.print(f"copied {name}: {trials} trials, compared one by one", highlight=False, markup=False)
    console.print("The sweep goes on there with this line in its file:", highlight=False)
    print(f"storage: {json.dumps(moved.storage, ensure_ascii=False)}")


@app.command()
def verdict(
    path: Annotated[Path | None, typer.Argument(help="a sweep file or a run folder")] = None,
    margin: MarginOption = None,
    table: Annotated[Path | None, typer.Option(help="a published CSV of runs instead of a sweep")] = None,
    columns: Annotated[
        str, typer.Option(help="what its columns hold: model=...,learning_rate=...,rank=...,eval_loss=...")
    ] = "",
    condition: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE that holds for all its runs, such as max_steps=780")
    ] = None,
    about: Annotated[str, typer.Option(help="a sentence for the head of the table's page")] = "",
    output: Annotated[Path | None, typer.Option(help="with a table: write OUTPUT.json and OUTPUT.md")] = None,
    overwrite: Annotated[bool, typer.Option(help="replace OUTPUT.json and OUTPUT.md")] = False,
) -> None:
    """Check results against the guideline tables: a sweep's (writes verdict.json and .md) or a published
    table's."""
    from results.errors import TableError
    from results.render.terminal import print_verdict

    share = _share(margin)
    if (path is None) == (table is None):
        raise TableError("verdict takes a sweep file or a run folder, or else a --table of published runs")
    if path is not None:
        if columns or condition or about or output or overwrite:
            raise TableError(
                "--columns, --condition, --about, --output and --overwrite go with a --table; a sweep "
                "knows its own"
            )
        with _files():
            answer = _load(path, None, check_files=False).verdict(margin=share)
        print_verdict(answer, console)
        return
    from rich.markdown import Markdown

    from results.verdict.statistics import MARGIN
    from sweeps.cli.table_verdict import judge_published

    assert table is not None
    with _files():
        page, files = judge_published(
            table,
            columns=columns,
            conditions=condition or [],
            margin=MARGIN if share is None else share,
            about=about,
            output=output,
            overwrite=overwrite,
        )
    console.print(Markdown(page))
    for file in files:
        console.print(f"wrote {file}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def report(path: FileArgument, margin: MarginOption = None) -> None:
    """Write report.html: the answer, its evidence and all plots on one page that needs no network."""
    share = _share(margin)
    with _files():
        written = _load(path, None, check_files=False).report(margin=share)
    console.print(f"wrote {written}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def merge(
    path: FileArgument,
    output: Annotated[
        Path | None, typer.Option(help="folder to write; default: the run's best/merged")
    ] = None,
) -> None:
    """Merge the best adapter into its base, in 16 bits, for programs that take no adapter."""
    from sweeps.cli.merge import merge_best

    with _files():
        folder = merge_best(_load(path, None, check_files=False), output)
    console.print(f"wrote {folder}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def export(
    path: FileArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="peft, transformers, trl, unsloth, axolotl, llama-factory, llama.cpp or yaml"
        ),
    ],
    destination: Annotated[
        Path | None, typer.Option(help="folder to write; default: the run's export/TARGET")
    ] = None,
    target_version: Annotated[
        str | None,
        typer.Option(
            help="version of the target to write for, such as 0.24; default: the one it was read from"
        ),
    ] = None,
    strict: Annotated[bool, typer.Option(help="refuse a target that cannot express everything")] = False,
    overwrite: Annotated[bool, typer.Option(help="replace files of an earlier export")] = False,
) -> None:
    """Write the best config for another program; what it cannot say is listed, in the files too."""
    with _files():
        result = _load(path, None, check_files=False).export(
            to, destination, target_version=target_version, strict=strict, overwrite=overwrite
        )
    for place in result.places:
        console.print(f"wrote {place}", highlight=False, markup=False, soft_wrap=True)
    for line in result.lossy:
        console.print(f"not expressed by {result.target}: {line}", style="yellow", highlight=False)
    for line in result.notes:
        console.print(f"note: {line}", style="dim", highlight=False)


app.add_typer(watching)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: every expected error becomes a message and an exit code, never a traceback."""
    try:
        _call(arguments)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _call(arguments: list[str] | None) -> None:
    # They take a second, in which Ctrl-C is no error either.
    from files_and_text.problems import InputError
    from lora_runner.errors import RunnerError
    from results.errors import ResultsError

    try:
        app(arguments)
    except SweepError as error:
        _fail(error, error.exit_code)
    except (InputError, ResultsError, RunnerError) as error:
        _fail(error, 2)


def _fail(error: Exception, code: int) -> None:
    print(f"error: {error}" if "\n" not in str(error) else f"errors:\n{error}", file=sys.stderr)
    sys.exit(code)
