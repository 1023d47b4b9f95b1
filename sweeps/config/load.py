"""From a sweep file to a config, or to all of its problems with their lines. Loading writes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from files_and_text.nearest_name import similar
from files_and_text.problems import InputError, Problem
from files_and_text.yaml_lines import KeyPath, load_yaml
from sweeps.config.named_files import check_named_files
from sweeps.config.partial_config import PartialConfig
from sweeps.config.resolved_file import HEADER_START
from sweeps.config.space import check_space
from sweeps.config.storage_url import ENVIRONMENT_VARIABLE
from sweeps.config.sweep_config import SweepConfig
from sweeps.config.sweep_source import SweepSource
from sweeps.errors import ConfigError

RESOLVED_NAME = "sweep.yaml"
"""The resolved sweep file in a run folder, and what a sweep file in a project's folder is best called."""
_RUN_FILES = (".run", "study.db", "trials.parquet", "trials/0000")
"""What a run folder holds and a project's folder does not, one of them from a run's first minute on."""


def load_sweep(
    path: Path | str,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    check_files: bool = True,
) -> SweepConfig:
    """Read a sweep file, or the one in a project or run folder, into a config whose paths are absolute.

    `overrides`: dotted keys and their values, as given on the command line ({"training.max_steps": 30}). They
    take precedence over the file; relative paths in them start from the working directory, not from the
    file's folder. A file without `storage` means `env:SWEEPS_STORAGE` if that variable is set. A run folder
    is different: its own file says where its study is, whatever the environment says now, and the run folder
    is where it is now, under whatever name; keys in it that only earlier versions had are left out. Without
    `check_files`, model and data need not exist any more: enough to read results. Raises ConfigError with
    every problem, each as `FILE:LINE: rule and value`.
    """
    file = _file_of(path)
    if not Path(path).exists():
        raise ConfigError([Problem(f"the file does not exist.{_similar(Path(path))}", str(path))])
    if Path(path).is_dir() and not file.is_file():
        raise ConfigError([Problem(f"the folder holds no {RESOLVED_NAME}.", str(path))])
    source = SweepSource(file, overrides or {})
    if not _is_in_run_folder(file, source.data):
        return load_source(source, os.environ if environ is None else environ, check_files)
    source.leave_out_dropped_keys()
    return load_source(source, {}, check_files).in_folder(Path(os.path.abspath(file)).parent)


def load_text(text: str, path: Path | str) -> SweepConfig:
    """The config of a file not written yet, as if `text` stood in `path`; raises ConfigError."""
    return load_source(SweepSource(Path(path), {}, text), os.environ, check_files=True)


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


def _similar(path: Path) -> str:
    """The end of an error about a path that is not there: the run folder or sweep file that was meant."""
    for folder in dict.fromkeys((path.parent, path.parent / "runs")):
        found = [*folder.glob("*.yaml"), *(file.parent for file in folder.glob(f"*/{RESOLVED_NAME}"))]
        if (name := similar(path.name, (file.name for file in found))) is not None:
            return f" Did you mean {str(folder / name)!r}?"
    return ""


def _is_in_run_folder(file: Path, data: Mapping[str | int, Any]) -> bool:
    """Whether a sweep file lies in its own run folder, rather than in a project's folder or anywhere else."""
    if file.name != RESOLVED_NAME:
        return False
    folder = Path(os.path.abspath(file)).parent
    if any((folder / name).exists() for name in _RUN_FILES):
        return True
    where, name = data.get("output", SweepConfig.model_fields["output"].default), data.get("name")
    if Path(os.path.abspath(folder / str(where) / str(name))) == folder:
        return True
    # Moved before anything else was written.
    return folder.name == name and file.read_text(encoding="utf-8").startswith(HEADER_START)


def load_source(source: SweepSource, environ: Mapping[str, str], check_files: bool) -> SweepConfig:
    """The config of raw values; raises ConfigError with all of their problems."""
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
