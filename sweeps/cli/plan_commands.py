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
    scenario: Annotated[
        str, typer.Option(help="kind of task: general, instruction, complex, short or long")
    ] = "general",
    evaluate: Annotated[
        str | None,
        typer.Option("--eval", help="evaluation data: file, folder or hub id; default: part of --train"),
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="optimizer steps of a full trial")] = None,
    train_embeddings: Annotated[bool, typer.Option(help="also train the embeddings and lm_head")] = False,
) -> None:
    """Write a sweep file, commented, for a model and its data."""
    from lora_runner.base.load_model import BaseSpec, check_weights, count_parameters
    from sweeps.cli.new_sweep_file import init_sweep

    def count(name: str) -> float:
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
    say(console, f"wrote {path}; next: sweeps plan {path}")


@app.command(epilog="sweeps schema > sweep.schema.json")
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
