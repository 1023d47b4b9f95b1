"""The arguments of `Sweep.new` as a config, checked by the same rules as a sweep file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from files_and_text.nearest_name import did_you_mean
from files_and_text.problems import Problem
from files_and_text.yaml_lines import KeyPath, ProblemAt, load_yaml
from search_spaces import load_guidelines
from sweeps.config import RESOLVED_NAME, SweepConfig, load_sweep, resolved
from sweeps.config.load import load_source
from sweeps.config.paths import absolute
from sweeps.config.sweep_source import SweepSource
from sweeps.errors import ConfigError, RunFolderError
from sweeps.init.defaults import default_name, usual_steps
from sweeps.python.given_data import GivenData, read_given

_CALL = "Sweep.new"
_OWN = ("model", "train", "eval", "scenario", "name", "run_folder")
_MAY_CHANGE = (
    *(
        "name",
        "output",
        "storage",
        "trials",
        "seats",
        "workers",
        "gpus_per_worker",
        "tracking",
        "reliability",
    ),
    *("search", "model.trust_remote_code", "model.device_map", "model.size", "metric.file"),
    *("training.per_device_eval_batch_size", "training.gradient_checkpointing", "training.graphs"),
)
"""Keys that may differ between a run folder and the arguments that continue it."""


class _Arguments(SweepSource):
    """The raw values of a call; problems name the argument, and relative paths start from the working
    directory."""

    def __init__(self, values: dict[str, Any], unwritten: Mapping[str, bytes]) -> None:
        self.file = Path(_CALL)
        self.data = {key: value for key, value in values.items()}
        self.problems = []
        self.unwritten = unwritten
        self._overridden = set()
        self._lines = {}

    def problem(self, key: KeyPath, message: str) -> Problem:
        if key[:1] == ("data",) and key[1:2] in (("train",), ("eval",)):
            message = message.replace("data.", "", 1)
        message = message.replace("is an unknown key", "is an unknown argument") if len(key) == 1 else message
        return Problem(message if message.endswith((".", "?")) else message + ".", _CALL)

    def folder_of(self, key: KeyPath) -> Path:
        return Path.cwd()


def new_config(
    model: Any,
    train: Any,
    *,
    eval: Any = None,
    scenario: str = "general",
    name: str | None = None,
    run_folder: Path | str | None = None,
    **keys: Any,
) -> tuple[SweepConfig, ProblemAt]:
    """The config of these arguments, and how to name one of them in an error.

    Raises ConfigError with all problems, RunFolderError when the run folder holds another sweep.
    """
    known = (*_OWN, *SweepConfig.model_fields)
    hints = {key: did_you_mean(key, known) for key in keys if key not in known}
    if any(hints.values()):
        lines = [f"{key} is an unknown argument.{hint}" for key, hint in hints.items() if hint]
        raise ConfigError(Problem(line, _CALL) for line in lines)
    given = _given(train, eval)
    model = _plain(model)
    source = given["train"]
    called = str(model.get("name", "")) if isinstance(model, dict) else str(model)
    values: dict[str, Any] = {"name": name, "model": model, "scenario": scenario}
    values |= _plain({key: value for key, value in keys.items() if value is not None})
    if run_folder is None:
        values["name"] = name or default_name(called, source if isinstance(source, str) else "")
        output = values.get("output", SweepConfig.model_fields["output"].default)
        folder = absolute(str(output), Path.cwd()) / str(values["name"])
    else:
        folder = absolute(str(run_folder), Path.cwd())
        values |= {"name": name or folder.name, "output": str(folder.parent)}
    data, unwritten = dict(values.get("data") or {}), dict[str, bytes]()
    for role, found in given.items():
        data[role] = found if isinstance(found, str) else str(folder / found.file)
        if isinstance(found, GivenData):
            unwritten[data[role]] = found.content
    values["data"], training = data, values.get("training", {})
    if isinstance(training, dict) and not {"max_steps", "num_train_epochs"} & set(training):
        values["training"] = {"max_steps": usual_steps(load_guidelines(), scenario), **training}
    arguments = _Arguments(values, unwritten)
    # A run folder says itself where its study is.
    environ = {} if (folder / RESOLVED_NAME).is_file() else dict(os.environ)
    config = load_source(arguments, environ, check_files=True)
    return _continued(config if run_folder is None else config.in_folder(folder)), arguments.problem


def _given(train: Any, evaluation: Any) -> dict[str, GivenData | str]:
    given: dict[str, GivenData | str] = {}
    problems = []
    for role, value in (("train", train), *([] if evaluation is None else [("eval", evaluation)])):
        try:
            given[role] = read_given(role, value)
        except ValueError as error:
            problems.append(Problem(f"{role} {error}.", _CALL))
    if problems:
        raise ConfigError(problems)
    return given


def _continued(config: SweepConfig) -> SweepConfig:
    """The config with the storage of the run folder that it continues. RunFolderError if that is another
    sweep's."""
    folder = config.run_folder
    if not (folder / RESOLVED_NAME).is_file():
        return config
    theirs = load_sweep(folder, check_files=False)
    ours_by_key, theirs_by_key = _flat(config), _flat(theirs)
    differing = [
        f"  {key}: {_short(theirs_by_key.get(key))} there, {_short(ours_by_key.get(key))} here"
        for key in dict.fromkeys((*theirs_by_key, *ours_by_key))
        if theirs_by_key.get(key) != ours_by_key.get(key)
        and not any(key == free or key.startswith(f"{free}.") for free in _MAY_CHANGE)
    ]
    if theirs.name != config.name:
        differing.insert(0, f"  name: {theirs.name} there, {config.name} here")
    if differing:
        lines = "\n".join(differing)
        raise RunFolderError(
            f"the run folder {folder} holds a sweep with other settings; give this one another name or "
            f"run_folder, or undo the change:\n{lines}"
        )
    return config if config.storage is not None else config.model_copy(update={"storage": theirs.storage})


def _flat(config: SweepConfig) -> dict[str, Any]:
    data, _ = load_yaml(resolved(config))

    def items(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                yield from items(item, f"{path}.{key}" if path else str(key))
        else:
            yield path, value

    return dict(items(data, ""))


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:28]} ... {text[-28:]}"


def _plain(value: Any) -> Any:
    """What Python writes otherwise than YAML: paths as text, tuples as lists."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
