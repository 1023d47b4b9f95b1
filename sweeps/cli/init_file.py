"""`sweeps init`: a commented sweep file, its ranges seeded from the guideline tables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from files_and_text.nearest_name import nearest
from files_and_text.problems import InputError, Problem
from files_and_text.yaml_lines import dump_yaml
from lora_runner.config import default_scheduler_kwargs
from lora_runner.data_spec import DataSpec
from search_spaces import Guidelines, SearchSpace, commented_space_yaml, load_guidelines, space_for
from sweeps.config import LoraSection, SweepConfig, TrainingSection, load_text
from sweeps.config.paths import DATA_SUFFIXES, absolute, is_local
from sweeps.errors import ConfigError

DEFAULT_MAX_STEPS = 500
_SIZE_IN_NAME = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([bBmM])(?![A-Za-z0-9])")


def init_sweep(
    model: str,
    train: str,
    path: Path | str = "sweep.yaml",
    *,
    scenario: str = "general",
    name: str | None = None,
    eval: str | None = None,
    max_steps: int | None = None,
    train_embeddings: bool = False,
    model_size: float | None = None,
    count_parameters: Callable[[str], float] | None = None,
    guidelines: tuple[str, ...] = (),
) -> SweepConfig:
    """Write a sweep file for a model and a training set, and return the config that it is read as.

    Paths are given from the working directory. The number of parameters is `model_size`, or what
    `count_parameters` says of the model, or what the model's name says ("Llama-3.1-8B"). `max_steps` is 500
    unless given, or the nearest number that the scenario's row allows. Never overwrites a file. Raises
    ConfigError, and then nothing is written.
    """
    file = Path(path)
    if file.exists() or file.is_symlink():
        raise ConfigError([Problem("the file exists already, and is never overwritten.", str(path))])
    if not absolute(str(file.parent), Path.cwd()).is_dir():
        raise ConfigError([Problem(f"the folder {str(file.parent)!r} does not exist.", str(path))])
    try:
        tables = load_guidelines(*guidelines)
    except InputError as error:
        raise ConfigError(error.problems) from None
    if scenario not in tables.scenarios():
        hint = nearest(scenario, tables.scenarios())
        raise ConfigError([f"the scenario must be one of the tables'; got {scenario!r}.{hint}"])
    steps = _default_steps(tables, scenario) if max_steps is None else max_steps
    size, size_source = _size(model, model_size, count_parameters)
    try:
        space = space_for(
            scenario=scenario,
            model_size=size,
            max_steps=steps,
            train_embeddings=train_embeddings,
            guidelines=tables,
        )
    except InputError as error:
        raise ConfigError(error.problems) from None
    text = _TEMPLATE.format(
        name=_line("name", name or _name_of(model)),
        model=_line("name", _written(model, file)),
        size=f"size: {_short(size)}",
        size_source=size_source,
        train=_line("train", _written(train, file, suffixes=DATA_SUFFIXES)),
        eval="# eval: eval.jsonl"
        if eval is None
        else _line("eval", _written(eval, file, suffixes=DATA_SUFFIXES)),
        max_length=DataSpec.max_length,
        scenarios=", ".join(tables.scenarios()),
        scenario=_line("scenario", scenario),
        guidelines=_line(
            "guidelines", [_written(item, file, suffixes=(".yaml", ".yml")) for item in guidelines]
        ),
        train_embeddings=_line("train_embeddings", train_embeddings),
        max_steps=steps,
        batch_size=TrainingSection.model_fields["per_device_train_batch_size"].default,
        scheduler_kwargs=_relative_minimum(space),
        made_for=f"scenario {scenario}, {_short(size)} parameters, {steps} steps",
        space=commented_space_yaml(space, tables),
        r=LoraSection.model_fields["r"].default,
        alpha=LoraSection.model_fields["alpha"].default,
        trials=SweepConfig.model_fields["trials"].default,
    )
    try:
        config = load_text(text, file)
    except ConfigError as error:
        # The file they would stand in is not written, so its lines say nothing.
        raise ConfigError([Problem(item.message) for item in error.problems]) from None
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise ConfigError([Problem(f"the file cannot be written: {error.strerror}.", str(path))]) from None
    return config


def _size(model: str, given: float | None, count: Callable[[str], float] | None) -> tuple[float, str]:
    """The number of parameters, and where it is from."""
    if given is not None:
        return float(given), "as given"
    if count is not None:
        return float(count(model)), "counted from the model's config"
    found = _SIZE_IN_NAME.findall(Path(model).name)
    if not found:
        raise ConfigError(
            [f"the size of {model!r} is not known: give the number of parameters, such as 8.03e9."]
        )
    number, unit = found[-1]
    return float(number) * (1e9 if unit in "bB" else 1e6), "read from the model's name, so better check it"


def _short(size: float) -> str:
    """8e9 rather than 8000000000.0, where nothing is lost."""
    short = re.sub(r"e\+0*", "e", f"{size:g}")
    return short if float(short) == size else f"{size:.0f}"


def _default_steps(tables: Guidelines, scenario: str) -> int:
    steps = DEFAULT_MAX_STEPS
    for row in tables.values():
        if row.topic == "scenario" and row.when.scenario == scenario:
            steps = max(steps, row.when.max_steps_low or steps)
            steps = min(steps, row.when.max_steps_high or steps)
    return steps


def _name_of(model: str) -> str:
    """The model's own name as far as it can name a folder."""
    name = re.sub(r"[^a-z0-9.-]+", "-", Path(os.path.abspath(model)).name.lower()).strip(".-")
    return name[:80].rstrip(".-") or "sweep"


def _written(text: str, file: Path, *, suffixes: tuple[str, ...] = ()) -> str:
    """A name given from the working directory as the file in `file`'s folder has to write it."""
    if not is_local(text, Path.cwd(), suffixes=suffixes):
        return text
    target, folder = absolute(text, Path.cwd()), absolute(str(file.parent), Path.cwd())
    # "./" keeps a folder from being taken for a hub id.
    return f"./{target.relative_to(folder)}" if target.is_relative_to(folder) else str(target)


def _relative_minimum(space: SearchSpace) -> str:
    """The default of cosine_with_min_lr as a line of `training`; a comment where the space never draws it."""
    name = "cosine_with_min_lr"
    kwargs = dump_yaml({name: default_scheduler_kwargs(name, DEFAULT_MAX_STEPS)}, one_line=True)
    return f"{'' if space['lr_scheduler_type'].contains(name) else '# '}lr_scheduler_kwargs: {kwargs}"


def _line(key: str, value: Any) -> str:
    return dump_yaml({key: value}).rstrip("\n")


_TEMPLATE = """\
# A sweep, seeded from the guideline tables. `sweeps plan` shows what it will do, `sweeps run` does it.
# Relative paths start from this file's folder; a key left out takes the value that `sweeps plan` shows.

{name}

model:
  {model}
  # Number of parameters ({size_source}); it decides which rows of the tables apply.
  {size}
  # trust_remote_code: false
  # device_map: auto        # for a base larger than one GPU, with gpus_per_worker

data:
  {train}
  # Without an evaluation set of its own, a share of the training records is held out (eval_fraction).
  {eval}
  # Tokens per example.
  max_length: {max_length}

# One of {scenarios}.
{scenario}
# Rows of your own over the built-in tables.
{guidelines}

# true: embed_tokens and lm_head are trained too, with a learning rate of their own; or a list of them; or the
# embeddings of a few tokens alone: {{tokens: ["<|user|>", "<|end|>"]}}.
{train_embeddings}

training:
  # Optimizer steps of a full trial; or num_train_epochs.
  max_steps: {max_steps}
  per_device_train_batch_size: {batch_size}
  gradient_accumulation_steps: 1
  # Times that a full trial is evaluated, and may be stopped early.
  evaluations: 5
  # A schedule's minimum as a share of each trial's own peak; a rate (min_lr) must lie below every drawn one.
  {scheduler_kwargs}

# What is searched. These ranges are the tables' own, widened, for {made_for}:
# take out a dimension, or the whole block, and the tables decide again when those change.
{space}
lora:
  r: {r}
  alpha: {alpha}
  dropout: 0.0
  target_modules: all-linear

search:
  # tpe, random, gp, cmaes or grid
  sampler: tpe
  # successive_halving, hyperband, median or none
  pruner: successive_halving
  seed: 0

# Finished trials of the whole sweep. Raise it and run again to go on.
trials: {trials}

# Trials side by side on one GPU, and GPUs; auto: what fits, and what there is.
seats: auto
workers: auto

# Where the study is kept: SQLite in the run folder, journal:PATH, or a database (its password in a variable).
# storage: env:SWEEPS_STORAGE
output: runs
"""
