"""From a sweep file to a config, or to all of its problems with their lines. Loading writes nothing."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from files_and_text.problems import InputError, Problem
from files_and_text.yaml_lines import KeyPath, Lines, line_of, load_yaml
from sweeps.config.draft import Draft, dotted
from sweeps.config.files import file_findings
from sweeps.config.paths import with_absolute_paths
from sweeps.config.sections.storage import ENVIRONMENT_VARIABLE
from sweeps.config.space import space_findings
from sweeps.config.sweep_config import SweepConfig
from sweeps.errors import ConfigError

RESOLVED_NAME = "sweep.yaml"
"""The resolved sweep file in a run folder."""


def load_sweep(
    path: Path | str,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    check_files: bool = True,
) -> SweepConfig:
    """Read a sweep file, or the one in a run folder, into a config whose paths are absolute.

    `overrides`: dotted keys and their values, as given on the command line ({"training.max_steps": 30}). They
    win over the file; relative paths in them start from the working directory, not from the file's folder.
    Without `storage` in the file, `env:SWEEPS_STORAGE` is taken where that variable is set; a run folder has
    its study where its own file says, whatever the environment came to say later. It is where it stands,
    wherever it was made. Without `check_files`, model and data need not be there any more:
    enough to read results. Raises ConfigError with every problem, each as `FILE:LINE: rule and value`.
    """
    file = _file_of(path)
    if Path(path).is_dir() and not file.is_file():
        raise ConfigError([Problem(f"the folder holds no {RESOLVED_NAME}.", str(path))])
    if Path(path).is_dir():
        return _where_it_stands(_load(file, file, overrides or {}, {}, check_files), Path(path))
    return _load(file, file, overrides or {}, os.environ if environ is None else environ, check_files)


def problem_at(
    path: Path | str, key: KeyPath, message: str, *, overrides: Mapping[str, Any] | None = None
) -> Problem:
    """A problem with the place of its key, for what only the model or the data can tell.

    `path` and `overrides` as they were given to `load_sweep`; the file is read again.
    """
    file = _file_of(path)
    try:
        data, lines = load_yaml(file, name=str(file))
    except InputError:
        return Problem(message, str(file))
    _, overridden, _ = _with_overrides(data if isinstance(data, dict) else {}, overrides or {})
    return _placed(file, lines, overridden, key, message)


def _file_of(path: Path | str) -> Path:
    return Path(path) / RESOLVED_NAME if Path(path).is_dir() else Path(path)


def _placed(file: Path, lines: Lines, overridden: set[KeyPath], key: KeyPath, message: str) -> Problem:
    message = message if message.endswith((".", "?")) else message + "."
    override = _covering(key, overridden)
    if override is not None:
        return Problem(message, f"override {dotted(override)}")
    return Problem(message, str(file), line_of(lines, key))


def _where_it_stands(config: SweepConfig, folder: Path) -> SweepConfig:
    """The config of a run folder that may have been moved or copied since it was written."""
    here = Path(os.path.abspath(folder))
    if here.name != config.name:
        rule = f"a run folder is named as its sweep, {config.name!r}; got {here.name!r}. Rename the folder."
        raise ConfigError([Problem(rule, str(folder))])
    return config.model_copy(update={"output": str(here.parent)})


def load_text(text: str, path: Path | str) -> SweepConfig:
    """The config of a file not written yet, as if `text` stood in `path`; raises ConfigError."""
    return _load(text, Path(path), {}, os.environ, check_files=True)


def _load(
    source: Path | str,
    file: Path,
    overrides: Mapping[str, Any],
    environ: Mapping[str, str],
    check_files: bool,
) -> SweepConfig:
    try:
        data, lines = load_yaml(source, name=str(file))
    except InputError as error:
        raise ConfigError(error.problems) from None
    if not isinstance(data, dict | None):
        raise ConfigError([Problem("a sweep file must be a mapping of keys to values.", str(file), 1)])
    merged, overridden, problems = _with_overrides(data or {}, overrides)
    if merged.get("storage") is None and environ.get(ENVIRONMENT_VARIABLE, "").strip():
        # Written down, so that a run folder is not opened as another study where the variable is missing.
        merged["storage"] = f"env:{ENVIRONMENT_VARIABLE}"

    def folder_of(key: KeyPath) -> Path:
        return Path.cwd() if _covering(key, overridden) is not None else Path(os.path.abspath(file)).parent

    def problem(key: KeyPath, message: str) -> Problem:
        return _placed(file, lines, overridden, key, message)

    draft = Draft(merged)
    config = with_absolute_paths(draft.config, folder_of)
    problems += [problem(key, message) for key, message in draft.findings]
    if check_files:
        problems += [problem(key, message) for key, message in file_findings(draft, config)]
    for found in space_findings(draft, config):
        problems.append(found if isinstance(found, Problem) else problem(*found))
    if problems:
        in_order = sorted(dict.fromkeys(problems), key=lambda item: (item.path != str(file), item.line or 0))
        raise ConfigError(in_order)
    return config


def parse_override(text: str) -> tuple[str, Any]:
    """`training.max_steps=30` as ("training.max_steps", 30), the value read as YAML. Raises ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            [Problem(f"an override is written KEY=VALUE, such as training.max_steps=30; got {text!r}.")]
        )
    try:
        # In a flow list no value is taken for the name of a file, and "a: b" stays one value.
        (read,), _ = load_yaml(f"[{value}\n]" if value.strip() else "[null]", name=f"override {key.strip()}")
    except InputError as error:
        raise ConfigError([Problem(item.message, item.path) for item in error.problems]) from None
    except ValueError:
        # "a, b" is two items of a list, so it was meant as text.
        read = value
    return key.strip(), read


def _with_overrides(
    data: dict[str | int, Any], overrides: Mapping[str, Any]
) -> tuple[dict[str | int, Any], set[KeyPath], list[Problem]]:
    """The data with the overrides laid over it, and their key paths."""
    merged = copy.deepcopy(data)
    overridden: set[KeyPath] = set()
    problems: list[Problem] = []
    short_forms = {"model": "name", "data": "train", "metric": "name"}
    for dotted_key, value in overrides.items():
        *above, last = dotted_key.split(".")
        owner: dict[str | int, Any] = merged
        for depth, key in enumerate(above):
            below = owner.get(key)
            if isinstance(below, str) and depth == 0 and key in short_forms:
                # `model: NAME` in the file and `model.revision` on the command line.
                below = {short_forms[key]: below}
            if below is not None and not isinstance(below, dict):
                problems.append(Problem(f"{key} in the file holds no keys.", f"override {dotted_key}"))
                break
            below = {} if below is None else below
            owner[key] = below
            owner = below
        else:
            owner[last] = copy.deepcopy(value)
            overridden.add((*above, last))
    return merged, overridden, problems


def _covering(key: KeyPath, overridden: set[KeyPath]) -> KeyPath | None:
    """The override that set this key or the mapping it stands in; None when the file did."""
    for length in range(len(key), 0, -1):
        if key[:length] in overridden:
            return key[:length]
    return None
