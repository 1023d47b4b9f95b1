"""The commands that make a sweep file and look ahead: init, schema, plan."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.arguments import JsonOption, SetOption, SweepArgument, console, load_to_run
from sweeps.console import say

app = typer.Typer()


@app.command(epilog="sweeps init --model Qwen/Qwen3-0.6B --train data.jsonl --scenario instruction")
def init(
    model: Annotated[str, typer.Option(help="base model: hub id or local folder")],
    train: Annotated[str, typer.Option(help="training data: file, folder or hub id")],
    path: Annotated[Path, typer.Argument(help="sweep file to write")] = Path("sweep.yaml"),
    evaluate: Annotated[
        str | None,
        typer.Option(
            "--eval", metavar="DATA", help="evaluation data: file, folder or hub id; default: part of --train"
        ),
    ] = None,
    scenario: Annotated[
        str, typer.Option(help="kind of task: general, instruction, complex, short or long")
    ] = "general",
    name: Annotated[
        str | None, typer.Option(help="name of the sweep and its run folder; default: MODEL-on-DATA")
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the sweep file if it exists")
    ] = False,
) -> None:
    """Look at a model and data, and write a commented sweep file.

    Sets lengths, batch size, steps and, where the tokenizer has none, a chat template.
    The search space comes from the guideline tables. The JSON schema is written beside
    the file, for editors.
    """
    from sweeps.init.new_sweep import Wanted, new_sweep

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
    )
    made = new_sweep(wanted, lambda line: say(console, line))
    for line in made.summary():
        say(console, line)
    say(console, f"Next: sweeps plan {path}")


@app.command(epilog="sweeps schema > .sweeps-schema.json")
def schema() -> None:
    """Print the JSON schema of sweep files, for editors.

    With it they complete and check a sweep file. `sweeps init` writes it beside the file.
    """
    from sweeps.config.reference.json_schema import schema_text

    print(schema_text(), end="")


@app.command(epilog="sweeps plan sweep.yaml\nsweeps plan --set training.max_steps=200")
def plan(
    path: SweepArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    show_record: Annotated[
        int | None, typer.Option(metavar="N", help="print only training record N, as the model sees it")
    ] = None,
) -> None:
    """Check a sweep file and show what would run.

    Shows the search space with the source of each range, the first trials, what
    becomes of the data, the trials side by side, time and memory. Writes nothing.
    """
    sweep = load_to_run(path, settings)
    if show_record is not None:
        from sweeps.cli.record_text import print_record

        record = sweep.show_record(show_record)
        if as_json:
            print(json.dumps(asdict(record), indent=2))
        else:
            print_record(record, console)
        return
    from sweeps.plan.plan_text import plan_view
    from sweeps.plan.time_estimate import measure_matrix_flops

    blueprint = sweep.plan()
    if as_json:
        for warning in blueprint.data.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(json.dumps(blueprint.summary(), indent=2, default=str))
    else:
        console.print(plan_view(blueprint, measure_matrix_flops()))
