"""What the user asks `sweeps init` for, and whether it can be: checked without torch, in a moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files_and_text.nearest_name import nearest
from files_and_text.problems import Problem
from files_and_text.yaml_lines import dump_yaml
from search_spaces import load_guidelines
from sweeps.config import SweepConfig, load_text
from sweeps.config.paths import DATA_SUFFIXES, absolute, is_local
from sweeps.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asked for; None: `sweeps init` chooses."""

    model: str
    train: str
    path: Path
    eval: str | None = None
    scenario: str = "general"
    name: str | None = None
    trials: int | None = None
    max_steps: int | None = None
    train_embeddings: bool = False
    overwrite: bool = False
    earlier_runs: tuple[Path, ...] = ()
    """Run folders whose learning rates the new range follows."""


def check_wanted(wanted: Wanted) -> SweepConfig:
    """A draft of the sweep, whose files exist and whose path is free. Raises ConfigError."""
    _check_target(wanted)
    problems = []
    scenarios = load_guidelines().scenarios()
    if wanted.scenario not in scenarios:
        hint = nearest(wanted.scenario, scenarios)
        rule = f"--scenario must be one of the guideline tables'; got {wanted.scenario!r}.{hint}"
        problems.append(Problem(rule))
    values = {"name": wanted.name or "draft", **sources_of(wanted), "training": {"max_steps": 1}}
    try:
        draft = load_unwritten(dump_yaml(values), wanted)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    if problems:
        raise ConfigError(problems)
    return draft


def _check_target(wanted: Wanted) -> None:
    path = wanted.path
    if path.is_dir():
        raise ConfigError(
            [Problem("names a folder; the sweep file must be named, such as sweep.yaml.", str(path))]
        )
    if (path.exists() or path.is_symlink()) and not wanted.overwrite:
        rule = "the file exists already; it is kept. Name another file, or give --overwrite."
        raise ConfigError([Problem(rule, str(path))])
    if not absolute(str(path.parent), Path.cwd()).is_dir():
        raise ConfigError([Problem(f"the folder {str(path.parent)!r} does not exist.", str(path))])
    if wanted.trials is not None and wanted.trials < 1:
        raise ConfigError([f"--trials must be at least 1; got {wanted.trials}"])
    if wanted.max_steps is not None and wanted.max_steps < 1:
        raise ConfigError([f"--max-steps must be at least 1; got {wanted.max_steps}"])


def sources_of(wanted: Wanted) -> dict[str, Any]:
    """Model and data as the file must write them."""
    data = {"train": _written(wanted.train, wanted.path, suffixes=DATA_SUFFIXES)}
    if wanted.eval is not None:
        data["eval"] = _written(wanted.eval, wanted.path, suffixes=DATA_SUFFIXES)
    return {"model": _written(wanted.model, wanted.path), "data": data}


def _written(text: str, file: Path, *, suffixes: tuple[str, ...] = ()) -> str:
    """A path that starts from the working directory, as the sweep file `file` must write it."""
    if not is_local(text, Path.cwd(), suffixes=suffixes):
        return text
    target, folder = absolute(text, Path.cwd()), absolute(str(file.parent), Path.cwd())
    # "./" distinguishes a folder from a hub id.
    return f"./{target.relative_to(folder)}" if target.is_relative_to(folder) else str(target)


def load_unwritten(text: str, wanted: Wanted) -> SweepConfig:
    """The config of a file's text before it is written. Raises ConfigError without line numbers."""
    try:
        return load_text(text, wanted.path)
    except ConfigError as error:
        raise ConfigError([Problem(item.message) for item in error.problems]) from None
