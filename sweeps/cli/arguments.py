"""Arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sweeps.cli.frame.default_run import (
    complete_run,
    given_or_only_run,
    given_or_sweep_file,
    no_default,
)
from sweeps.errors import ConfigError

if TYPE_CHECKING:
    from sweeps.sweep import Sweep

console = Console()

RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="run folder or sweep file; default: the only run in runs/",
        default_factory=no_default,
        callback=given_or_only_run,
        autocompletion=complete_run,
    ),
]
"""For commands that look at a run."""
SweepArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SWEEP",
        help="sweep file or run folder; default: sweep.yaml",
        default_factory=no_default,
        callback=given_or_sweep_file,
        autocompletion=complete_run,
    ),
]
"""For commands that start from a sweep file."""
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="override a key of the sweep file, such as training.max_steps=50"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
MarginOption = Annotated[
    float | None,
    typer.Option(
        metavar="PERCENT",
        help="largest difference that counts as none, in percent of the loss; default: that of "
        "`sweeps confirm`, else 0.5",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="join a running Ray: auto or HOST:PORT; default: start one"),
]


def load_to_run(path: Path, settings: list[str] | None) -> Sweep:
    """The sweep of a sweep file or run folder; its model and data must be there."""
    from sweeps.config import parse_override
    from sweeps.sweep import Sweep

    return Sweep.load(path, dict(parse_override(text) for text in settings or []))


def load_to_read(path: Path) -> Sweep:
    """The same without looking for model and data: enough to read results."""
    from sweeps.sweep import Sweep

    return Sweep.load(path, check_files=False)


def share_of(percent: float) -> float:
    """The margin as a share of the loss."""
    if not 0 < percent <= 50:
        raise ConfigError([f"the margin is above 0 and at most 50 percent of the loss; got {percent:g}"])
    return percent / 100


@contextmanager
def file_errors() -> Iterator[None]:
    """A file that cannot be read or written is bad input: one line and exit code 2."""
    from results.errors import ResultsError

    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename
        if path is None:
            raise
        raise ResultsError(f"{path}: {error.strerror}") from error
