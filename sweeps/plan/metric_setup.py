"""Makes the sweep file's metric ready to be measured: finds its function or task and checks it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from files_and_text.nearest_name import nearest
from files_and_text.yaml_lines import ProblemAt
from lora_runner.data import DataBundle
from lora_runner.errors import MetricError
from lora_runner.metric.scores import MetricSpec, load_function
from sweeps.config import SweepConfig
from sweeps.config.sections.metric import MetricSection
from sweeps.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def metric_of(
    config: SweepConfig,
    problem_at: ProblemAt,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_positions: int | None = None,
) -> MetricSpec | None:
    """The metric to measure. Raises ConfigError for a function or a task that cannot be found.

    `tokenizer` gives the length of a task's texts, which are cut to `max_positions` tokens.
    """
    section = config.metric
    if section is None:
        return None
    if section.is_task:
        return _task_of(section, problem_at, tokenizer, max_positions)
    file, source = _source_of(section, problem_at) if section.is_function else ("", "")
    return MetricSpec(
        name=section.name,
        direction=section.direction or "maximize",
        max_new_tokens=section.max_new_tokens,
        num_prompts=section.num_prompts,
        every=section.every,
        objective=section.objective,
        source=source,
        file=file,
    )


def check_prompts(metric: MetricSpec | None, data: DataBundle, problem_at: ProblemAt) -> None:
    """Raise ConfigError if the evaluation set has no prompts to answer."""
    if metric is not None and not metric.is_task and not data.eval_prompts:
        message = (
            f"metric {metric.name} needs evaluation records with a prompt and an answer; none of "
            f"{data.eval.source} has one that fits (format {data.format})"
        )
        raise ConfigError([problem_at(("metric", "name"), message)])


def _task_of(
    section: MetricSection,
    problem_at: ProblemAt,
    tokenizer: PreTrainedTokenizerBase | None,
    max_positions: int | None,
) -> MetricSpec:
    """Load the task and its data, so that a missing part fails here and not on a worker."""
    from lora_runner.metric.lm_eval_task import load_task

    try:
        source = Path(section.file).read_text(encoding="utf-8") if section.file else ""
    except (OSError, ValueError) as error:
        message = f"metric: {section.file} cannot be read: {error}"
        raise ConfigError([problem_at(("metric", "file"), message)]) from error
    try:
        task = load_task(
            section.name, source, num_documents=section.num_prompts, max_new_tokens=section.max_new_tokens
        )
    except MetricError as error:
        _, name, *metric = section.name.split(":")
        hint = nearest(metric[0] if metric else name, error.known) if error.known else ""
        raise ConfigError([problem_at(("metric", "name"), f"metric: {error}.{hint}")]) from error
    if section.direction not in (None, task.direction):
        message = (
            f"metric.direction must be {task.direction}, as task {task.name} says of {task.metric}; got "
            f"{section.direction!r}"
        )
        raise ConfigError([problem_at(("metric", "direction"), message)])
    length = 0 if tokenizer is None else task.longest(tokenizer)
    return MetricSpec(
        name=section.name,
        direction=task.direction,
        max_new_tokens=task.max_new_tokens,
        num_prompts=task.num_documents,
        every=section.every,
        objective=section.objective,
        source=source,
        file=section.file or "",
        prompt_length=length if max_positions is None else min(length, max_positions),
    )


def _source_of(section: MetricSection, problem_at: ProblemAt) -> tuple[str, str]:
    module, _, function = section.name.partition(":")
    key = ("metric", "name" if section.file is None else "file")
    file = section.file or _importable(module)
    if file is None:
        message = (
            f"metric: there is no module {module!r}: neither {module.replace('.', '/')}.py beside the sweep "
            "file nor one that Python can import"
        )
        raise ConfigError([problem_at(key, message)])
    try:
        source = Path(file).read_text(encoding="utf-8")
        load_function(section.name, source, file)
    except MetricError as error:
        hint = nearest(function, error.known) if error.known else ""
        raise ConfigError([problem_at(key, f"metric: {error}.{hint}")]) from error
    except (OSError, ValueError) as error:
        raise ConfigError([problem_at(key, f"metric: {file} cannot be read: {error}")]) from error
    return file, source


def _importable(module: str) -> str | None:
    """The source file that Python would import."""
    # A module that `load_function` has run has no spec, and would hide the file from a second plan.
    known = sys.modules.get(module)
    loaded = known if known is not None and known.__spec__ is None and module != "__main__" else None
    if loaded is not None:
        del sys.modules[module]
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    finally:
        if loaded is not None:
            sys.modules[module] = loaded
    if found is None or not found.has_location or found.origin is None or not found.origin.endswith(".py"):
        return None
    return found.origin
