"""The app and its entry point: every expected error becomes a message and an exit code, never a traceback.

Exit codes: 0 done, 1 the sweep failed (`replay`: a value differs, `certify`: a computation has no invariant
way), 2 bad input (nothing written, nothing lost), 70 an error of this program, with its traceback, 130
interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from sweeps.cli import certify, plan_commands, replay, result_commands, run_commands, watch_commands
from sweeps.cli.frame.command_help import HelpCommand, HelpGroup
from sweeps.cli.frame.usage_errors import usage_message
from sweeps.cli.run_commands import INTERRUPTED
from sweeps.console import wrapped
from sweeps.errors import SweepError

INTERNAL_ERROR = 70
"""EX_SOFTWARE of sysexits.h."""


class Sweeps(HelpGroup):
    """All commands, in the order in which people need them."""

    panels = (
        ("Make and run a sweep", ("demo", "init", "plan", "run", "watch", "stop")),
        ("Look at it, also while it runs", ("status", "results", "list", "dashboard", "track")),
        ("Be sure, and use the answer", ("confirm", "verdict", "report", "export", "merge")),
        ("More", ("replay", "table-verdict", "move", "certify", "schema")),
    )


app = typer.Typer(
    cls=Sweeps,
    epilog="sweeps demo\nsweeps init --model Qwen/Qwen3-0.6B --train data.jsonl\nsweeps run",
    pretty_exceptions_enable=False,
)
for commands in (plan_commands, run_commands, certify, watch_commands, result_commands, replay):
    for registered in commands.app.registered_commands:
        registered.cls = HelpCommand
    app.add_typer(commands.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"sweeps {version('qlora-sweeps')}")
        raise typer.Exit


@app.callback()
def sweeps(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="show the version and exit"),
    ] = False,
) -> None:
    """Hyperparameter sweeps for QLoRA fine-tuning, started from guideline tables and checked against them."""


def main(arguments: list[str] | None = None) -> None:
    """The entry point of `sweeps` and of `python -m sweeps`."""
    # As in the workers; torch reads it when it is loaded. On a busy machine `plan --measure` is several times
    # too slow with threads that spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        # They are needed to end well, and Ctrl-C while they are imported is no error either.
        from files_and_text.problems import InputError
        from lora_runner.errors import RunnerError
        from results.errors import ResultsError

        command = typer.main.get_command(app)
        words = _as_spelled_now(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        try:
            sys.exit(command.main(words, prog_name="sweeps", standalone_mode=False) or 0)
        except typer.TyperException as error:
            _fail(usage_message(error, words), error.exit_code)
        except SweepError as error:
            _fail(error, error.exit_code)
        except (InputError, ResultsError, RunnerError) as error:
            _fail(error, 2)
        except Exception:
            # Not by Python's own 1, which is an answer of some commands.
            traceback.print_exc()
            sys.exit(INTERNAL_ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _as_spelled_now(arguments: list[str]) -> list[str]:
    """Arguments with what was renamed: scripts may still say `verdict --table FILE`, `export
    --destination`."""
    command, *rest = arguments or [""]
    if command == "verdict" and any(word.partition("=")[0] == "--table" for word in rest):
        return ["table-verdict", *(word.removeprefix("--table=") for word in rest if word != "--table")]
    if command == "export":
        new = {"--destination": "--output"}
        parts = [word.partition("=") for word in rest]
        return [command, *(new.get(name, name) + equals + value for name, equals, value in parts)]
    return arguments


def _fail(error: object, code: int) -> None:
    first, newline, _ = str(error).partition("\n")
    text = f"errors:\n{error}" if newline and not first.endswith(":") else f"error: {error}"
    print(wrapped(text) if sys.stderr.isatty() else text, file=sys.stderr)
    sys.exit(code)
