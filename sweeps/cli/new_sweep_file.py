"""`sweeps init`: a commented sweep file whose search space comes from the guideline tables."""

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
from sweeps.config import SweepConfig, load_text
from sweeps.config.paths import DATA_SUFFIXES, absolute, is_local
from sweeps.config.sections.training import LoraSection, TrainingSection
from sweeps.errors import ConfigError

DEFAULT_MAX_STEPS = 500


def init_sweep(
    model: str,
    train: str,
    path: Path,
    *,
    count_parameters: Callable[[str], float],
    scenario: str = "general",
    eval: str | None = None,
    max_steps: int | None = None,
    train_embeddings: bool = False,
) -> SweepConfig:
    """Write a sweep file for a model and a training set; returns the config that it holds.

    Relative paths start from the working directory. `max_steps` defaults to 500, or the nearest number that
    the scenario's row allows. Never overwrites a file. Raises ConfigError, and then nothing is written.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError([Problem("the file exists already and is never overwritten.", str(path))])
    if not absolute(str(path.parent), Path.cwd()).is_dir():
        raise ConfigError([Problem(f"the folder {str(path.parent)!r} does not exist.", str(path))])
    tables = load_guidelines()
    if scenario not in tables.scenarios():
        hint = nearest(scenario, tables.scenarios())
        raise ConfigError([f"the scenario must be one of the guideline tables; got {scenario!r}.{hint}"])
    steps = _default_steps(tables, scenario) if max_steps is None else max_steps
    size = float(count_parameters(model))
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
        name=_line("name", _name_of(model)),
        model=_line("name", _written(model, path)),
        size=f"size: {_short(size)}",
        train=_line("train", _written(train, path, suffixes=DATA_SUFFIXES)),
        eval="# eval: eval.jsonl"
        if eval is None
        else _line("eval", _written(eval, path, suffixes=DATA_SUFFIXES)),
        max_length=DataSpec.max_length,
        scenarios=", ".join(tables.scenarios()),
        scenario=_line("scenario", scenario),
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
        config = load_text(text, path)
    except ConfigError as error:
        # Without line numbers: the file is not written.
        raise ConfigError([Problem(item.message) for item in error.problems]) from None
    try:
        with path.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise ConfigError([Problem(f"the file cannot be written: {error.strerror}.", str(path))]) from None
    return config


def _short(size: float) -> str:
    """8e9 rather than 8000000000.0, if that is exact."""
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
    """The model's name, reduced to what a folder may be named."""
    name = re.sub(r"[^a-z0-9.-]+", "-", Path(os.path.abspath(model)).name.lower()).strip(".-")
    return name[:80].rstrip(".-") or "sweep"


def _written(text: str, file: Path, *, suffixes: tuple[str, ...] = ()) -> str:
    """A path that starts from the working directory, as the sweep file `file` must write it."""
    if not is_local(text, Path.cwd(), suffixes=suffixes):
        return text
    target, folder = absolute(text, Path.cwd()), absolute(str(file.parent), Path.cwd())
    # "./" distinguishes a folder from a hub id.
    return f"./{target.relative_to(folder)}" if target.is_relative_to(folder) else str(target)


def _relative_minimum(space: SearchSpace) -> str:
    """The default of cosine_with_min_lr as a line of `training`, commented out when it is not searched."""
    name = "cosine_with_min_lr"
    kwargs = dump_yaml({name: default_scheduler_kwargs(name, DEFAULT_MAX_STEPS)}, one_line=True)
    return f"{'' if space['lr_scheduler_type'].contains(name) else '# '}lr_scheduler_kwargs: {kwargs}"


def _line(key: str, value: Any) -> str:
    return dump_yaml({key: value}).rstrip("\n")


_TEMPLATE = """\
# A sweep that starts from the guideline tables. `sweeps plan` shows what it would do, `sweeps run` runs it.
# Relative paths start from this file's folder. `sweeps plan` also shows the defaults of keys that are left
# out.

{name}

model:
  {model}
  # Number of parameters (counted from the model's config); it decides which guideline rows apply.
  {size}
  # trust_remote_code: false
  # device_map: auto        # for a base larger than one GPU, with gpus_per_worker

data:
  {train}
  # Without an evaluation set, a share of the training records is held out (eval_fraction).
  {eval}
  # Tokens per example.
  max_length: {max_length}

# One of {scenarios}.
{scenario}
# Files with guideline rows of your own, added to the built-in tables.
guidelines: []

# true: also train embed_tokens and lm_head, with their own learning rate. Or a list of modules, or only the
# embeddings of some tokens: {{tokens: ["<|user|>", "<|end|>"]}}.
{train_embeddings}

training:
  # Optimizer steps of a full trial; or num_train_epochs.
  max_steps: {max_steps}
  per_device_train_batch_size: {batch_size}
  gradient_accumulation_steps: 1
  # How often a full trial is evaluated; after each evaluation it may be stopped early.
  evaluations: 5
  # Minimum as a share of the trial's learning rate. A fixed min_lr must be below every searched learning
  # rate.
  {scheduler_kwargs}

# The search space: the guideline tables' ranges for {made_for}, widened.
# They do not follow later changes above; remove a dimension, or the block, and the tables decide again.
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

# Number of trials to finish. Raise it and run again to continue the sweep.
trials: {trials}

# Trials side by side on one GPU, and number of GPUs. auto: as many as fit, and all GPUs.
seats: auto
workers: auto

# Where the study is kept: SQLite in the run folder, journal:PATH, or a database (URL in a variable).
# storage: env:SWEEPS_STORAGE
output: runs
"""
