"""The commands that make a sweep file and look ahead: init, schema, plan."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from sweeps.cli.arguments import JsonOption, SetOption, SweepArgument, console, load_to_run
from sweeps.cli.frame.default_run import complete_run_folder
from sweeps.console import print_trimmed, say
from sweeps.errors import ConfigError

app = typer.Typer()


@app.command(epilog="sweeps init --model Qwen/Qwen3-0.6B --train data.jsonl --scenario instruction")
def init(
    model: Annotated[str, typer.Option(metavar="MODEL", help="base model: hub id or local folder")],
    train: Annotated[str, typer.Option(metavar="DATA", help="training data: file, folder or hub id")],
    path: Annotated[Path, typer.Argument(metavar="FILE", help="sweep file to write")] = Path("sweep.yaml"),
    evaluate: Annotated[
        str | None,
        typer.Option(
            "--eval", metavar="DATA", help="evaluation data: file, folder or hub id; default: part of --train"
        ),
    ] = None,
    scenario: Annotated[
        str, typer.Option(metavar="KIND", help="kind of task: general, instruction, complex, short or long")
    ] = "general",
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="name of the sweep and its run folder; default: MODEL-on-DATA"),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="number of trials to finish; default: 32")
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="optimizer steps of a trial; default: from the number of records"),
    ] = None,
    train_embeddings: Annotated[
        bool, typer.Option("--train-embeddings", help="also train the embeddings and lm_head")
    ] = False,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="earlier run folder whose best learning rates the new range follows; may be repeated",
            autocompletion=complete_run_folder,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the sweep file if it exists")
    ] = False,
) -> None:
    """Look at a model and data, and write a commented sweep file.

    Sets lengths, batch size, steps and, where the tokenizer has none, a chat template.
    The search space comes from the guideline tables; with --from, the learning rate also
    from what earlier runs found. The JSON schema is written beside
    the file, for editors.
    """
    from sweeps.init.earlier_runs import read_earlier_runs
    from sweeps.init.wanted import Wanted, check_wanted

    wanted = Wanted(
        model=model,
        train=train,
        path=path,
        eval=evaluate,
        scenario=scenario,
        name=name,
        trials=trials,
        max_steps=max_steps,
        train_embeddings=train_embeddings,
        overwrite=overwrite,
        earlier_runs=tuple(earlier or ()),
    )
    check_wanted(wanted)  # before torch is imported
    read_earlier_runs(wanted.earlier_runs)
    from sweeps.init.new_sweep import new_sweep

    made = new_sweep(wanted, lambda line: say(console, line))
    for line in made.summary():
        console.print(Text(line))
    say(console, f"Next    sweeps plan {path}")


@app.command(epilog="sweeps schema > .sweeps-schema.json")
def schema() -> None:
    """Print the JSON schema of sweep files, for editors.

    With it they complete and check a sweep file. `sweeps init` writes it beside the file.
    """
    from sweeps.config.reference.json_schema import schema_text

    print(schema_text(), end="")


@app.command(
    epilog="sweeps plan sweep.yaml\nsweeps plan --set training.max_steps=200\n"
    "sweeps plan --measure\nsweeps plan --gpu 24GiB"
)
def plan(
    path: SweepArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    show_record: Annotated[
        int | None, typer.Option(metavar="N", help="print only training record N, as the model sees it")
    ] = None,
    with_details: Annotated[
        bool,
        typer.Option("--details", help="also the memory's parts, sources of the ranges, the first trials"),
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="GPU", help="plan for a GPU that is not here: 24GiB, H200, 'RTX 4090' ..."),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(metavar="N", help="number of such GPUs, with --gpu; default: 1")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="load the base and train for some seconds: the time and memory that it takes"
        ),
    ] = False,
) -> None:
    """Check a sweep file and show what would run.

    Shows whether it fits, how long it takes, the trials, the data and the search space.
    Writes nothing.
    """
    if measure and gpu is not None:
        raise ConfigError(["--measure takes steps on this machine, --gpu plans for another: leave one out"])
    if gpus is not None and gpu is None:
        raise ConfigError(["--gpus is for GPUs that are not here: name one with --gpu, such as --gpu 24GiB"])
    sweep = load_to_run(path, settings)
    if show_record is not None:
        from sweeps.cli.record_text import print_record

        record = sweep.show_record(show_record)
        if as_json:
            print(json.dumps(asdict(record), indent=2))
        else:
            print_record(record, console)
        return
    from lora_runner.memory.planned_device import num_cores, unused_gpu
    from sweeps.plan.timing.measured_steps import TRAINING_SECONDS, measure_steps
    from sweeps.plan.timing.time_estimate import (
        busy_warning,
        load_average,
        measure_matrix_flops,
        measured_run,
        time_summary,
    )
    from sweeps.plan.view.details import details
    from sweeps.plan.view.overview import fits_text, overview

    blueprint = sweep.plan(gpu=gpu, gpus=1 if gpus is None else gpus)
    is_here = blueprint.device.is_here
    busy = busy_warning(load_average(), num_cores()) if is_here else None
    flops = measure_matrix_flops() if is_here else None
    measured = None
    if is_here and sweep.run_folder.is_dir():  # it has run here
        measured = measured_run(lambda: sweep.storage_url, sweep.config.name)
    steps = None
    if measure:
        if not blueprint.fits:
            raise ConfigError([f"--measure trains, and this does not fit: {fits_text(blueprint).plain}"])
        if not as_json:
            say(console, f"Loading the base, then training for {TRAINING_SECONDS:g} s ...")
        steps = measure_steps(blueprint)
    if as_json:
        for warning in blueprint.data.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        summary = blueprint.summary() | {"time": time_summary(blueprint, flops, measured, steps)}
        summary["measured"] = None if steps is None else asdict(steps)
        print(json.dumps(summary, indent=2, default=str))
    else:
        unused = unused_gpu() if is_here else None
        print_trimmed(console, overview(blueprint, flops, unused, measured=measured, steps=steps, busy=busy))
        if with_details:
            print_trimmed(console, details(blueprint))
        else:
            say(console, f"More: sweeps plan {path} --details")
