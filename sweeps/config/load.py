"""From a sweep file to a config, or to all of its problems with their lines. Loading writes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from files_and_text.problems import InputError, Problem
from files_and_text.yaml_lines import KeyPath, load_yaml
from sweeps.config.named_files import check_named_files
from sweeps.config.partial_config import PartialConfig
from sweeps.config.space import check_space
from sweeps.config.storage_url import ENVIRONMENT_VARIABLE
from sweeps.config.sweep_config import SweepConfig
from sweeps.config.sweep_source import SweepSource
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
    take precedence over the file; relative paths in them start from the working directory, not from the
    file's folder. A file without `storage` means `env:SWEEPS_STORAGE` if that variable is set. A run folder
    is different: its own file says where its study is, whatever the environment says now, and `output` is
    where the folder is now. Without `check_files`, model and data need not exist any more: enough to read
    results. Raises ConfigError with every problem, each as `FILE:LINE: rule and value`.
    """
    file = _file_of(path)
    if not Path(path).is_dir():
        source = SweepSource(file, overrides or {})
        return _load(source, os.environ if environ is None else environ, check_files)
    if not file.is_file():
        raise ConfigError([Problem(f"the folder holds no {RESOLVED_NAME}.", str(path))])
    config = _load(SweepSource(file, overrides or {}), {}, check_files)
    folder = Path(os.path.abspath(path))
    if folder.name != config.name:
        rule = f"a run folder is named as its sweep, {config.name!r}; got {folder.name!r}. Rename the folder."
        raise ConfigError([Problem(rule, str(path))])
    return config.model_copy(update={"output": str(folder.parent)})


def load_text(text: str, path: Path | str) -> SweepConfig:
    """The config of a file not written yet, as if `text` stood in `path`; raises ConfigError."""
    return _load(SweepSource(Path(path), {}, text), os.environ, check_files=True)


def problem_at(
    path: Path | str, key: KeyPath, message: str, *, overrides: Mapping[str, Any] | None = None
) -> Problem:
    """A problem that only the model or the data could tell, with the file and line of its key.

    `path` and `overrides` as they were given to `load_sweep`; the file is read again.
    """
    file = _file_of(path)
    try:
        return SweepSource(file, overrides or {}).problem(key, message)
    except ConfigError:
        return Problem(message, str(file))


def _file_of(path: Path | str) -> Path:
    return Path(path) / RESOLVED_NAME if Path(path).is_dir() else Path(path)


def _load(source: SweepSource, environ: Mapping[str, str], check_files: bool) -> SweepConfig:
    if source.data.get("storage") is None and environ.get(ENVIRONMENT_VARIABLE, "").strip():
        # Written down, so that a run folder is not opened as another study where the variable is missing.
        source.data["storage"] = f"env:{ENVIRONMENT_VARIABLE}"
    partial = PartialConfig(source)
    if check_files:
        check_named_files(partial)
    check_space(partial)
    if partial.problems:
        file, distinct = str(source.file), list(dict.fromkeys(partial.problems))
        distinct.sort(key=lambda problem: (problem.path != file, problem.line or 0))
        raise ConfigError(distinct)
    return partial.config


def parse_override(text: str) -> tuple[str, Any]:
    """`training.max_steps=30` as ("training.max_steps", 30), the value read as YAML. Raises ConfigError."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(
            [Problem(f"an override is written KEY=VALUE, such as training.max_steps=30; got {text!r}.")]
        )
    try:
        # In a flow list no value is taken for the name of a file, and "a: b" stays one value.
        (read,), _ = load_yaml(f"[{value}\n]" if value.strip() else "[null]", name=f"override {key}")
    except InputError as error:
        raise ConfigError([Problem(item.message, item.path) for item in error.problems]) from None
    except ValueError:
        # "a, b" is two items of a list, so it was meant as text.
        read = value
    return key, read
