"""The commands that judge and write results: verdict, table-verdict, report, export, merge."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.arguments import (
    MarginOption,
    RunArgument,
    console,
    file_errors,
    load_to_read,
    share_of,
)
from sweeps.console import say, shown_path, wrapped

app = typer.Typer()


class MergeDtype(StrEnum):
    """Dtypes of merged weights."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


@app.command(epilog="sweeps verdict runs/mine")
def verdict(
    path: RunArgument,
    margin: MarginOption = None,
    rows: Annotated[bool, typer.Option("--rows", help="list the guideline rows one by one")] = False,
) -> None:
    """Check the results against the guideline tables.

    Writes verdict.json, verdict.md and verdict-rows.md into the run folder.
    """
    from results.render.terminal import print_verdict

    share = None if margin is None else share_of(margin)
    with file_errors():
        sweep = load_to_read(path)
        found = sweep.verdict(margin=share)
    print_verdict(found, sweep.read_answer(margin=share), console, rows=rows)


@app.command(epilog="sweeps table-verdict runs.csv --columns learning_rate=lr,eval_loss=loss")
def table_verdict(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV file with one run a line")],
    columns: Annotated[
        str,
        typer.Option(
            metavar="NAME=COLUMN,...",
            help="what the columns hold: model=...,learning_rate=...,rank=...,eval_loss=...",
        ),
    ] = "",
    condition: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="what holds for all runs, such as max_steps=780"),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            metavar="PERCENT", help="largest difference that counts as none, in percent of the loss"
        ),
    ] = 0.5,
    about: Annotated[str, typer.Option(metavar="TEXT", help="sentence for the head of the page")] = "",
    output: Annotated[
        Path | None, typer.Option(metavar="OUTPUT", help="write OUTPUT.json and OUTPUT.md")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUTPUT.json and OUTPUT.md")] = False,
) -> None:
    """Check a published table of runs against the guideline tables.

    Prints a summary; the whole page needs --output.
    """
    from rich.markdown import Markdown

    from sweeps.cli.table_verdict import judge_table_file

    share = share_of(margin)
    with file_errors():
        page, files = judge_table_file(
            table,
            columns=columns,
            conditions=condition or [],
            margin=share,
            about=about,
            output=output,
            overwrite=overwrite,
        )
    console.print(Markdown(page))
    for file in files:
        say(console, f"wrote {file}")


@app.command(epilog="sweeps report runs/mine")
def report(path: RunArgument, margin: MarginOption = None) -> None:
    """Write report.html: the answer on one page.

    It needs no network.
    """
    share = None if margin is None else share_of(margin)
    with file_errors():
        written = load_to_read(path).report(margin=share)
    say(console, f"wrote {shown_path(written)}")


@app.command(epilog="sweeps export runs/mine --to trl\nsweeps export runs/mine --to unsloth --output out")
def export(
    path: RunArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="TARGET",
            help="peft, transformers, trl, unsloth, axolotl, llama-factory, llama.cpp or yaml",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="folder to write; default: export/TARGET in the run folder"),
    ] = None,
    target_version: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            help="version of the target to write for, such as 0.24; default: the one the export is "
            "written for",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="fail when the target cannot express all of the configuration")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the files of an earlier export")
    ] = False,
) -> None:
    """Write the best configuration for another program.

    What that program cannot express is listed here and in the written files.
    """
    with file_errors():
        result = load_to_read(path).export(
            to, output, target_version=target_version, strict=strict, overwrite=overwrite
        )
    for file in result.top_level_paths:
        say(console, f"wrote {file}")
    for line in result.lossy:
        say(console, wrapped(f"not expressed by {result.target}: {line}"), style="yellow")
    for line in result.notes:
        say(console, wrapped(f"note: {line}"), style="dim")


@app.command(epilog="sweeps merge runs/mine")
def merge(
    path: RunArgument,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="folder to write; default: best/merged in the run folder"),
    ] = None,
    dtype: Annotated[
        MergeDtype,
        typer.Option(metavar="DTYPE", help="bfloat16, float16 or float32, which takes twice the space"),
    ] = MergeDtype.bfloat16,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure", help="evaluate the merged model on the sweep's evaluation records"
        ),
    ] = True,
) -> None:
    """Merge the best adapter into its base model, in 16 bits.

    For programs that load no adapters. The adapter was trained on the quantized base, so the merged model's
    loss is another one: it is measured and shown beside the adapter's.
    """
    from sweeps.cli.merge_adapter import merge_best

    with file_errors():
        merged = merge_best(load_to_read(path), output, dtype=dtype.value, measure=measure)
    for line in merged.lines():
        say(console, wrapped(line))
