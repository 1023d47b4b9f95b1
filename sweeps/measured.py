"""The sweep file's metric, ready to be measured: its function found, tried, and read into text."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from lora_runner.data import DataBundle
from lora_runner.errors import MetricError
from lora_runner.metric import MetricSpec, load_function
from search_spaces import KeyPath, Problem, nearest
from sweeps.config import MetricSection, SweepConfig
from sweeps.errors import ConfigError


def metric_of(config: SweepConfig, problem_at: Callable[[KeyPath, str], Problem]) -> MetricSpec | None:
    """What is to be measured. Raises ConfigError for a module or function that is not to be had."""
    section = config.metric
    if section is None:
        return None
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


def check_prompts(
    metric: MetricSpec | None, data: DataBundle, problem_at: Callable[[KeyPath, str], Problem]
) -> None:
    """Raise ConfigError where the evaluation set has no prompts to answer."""
    if metric is not None and not data.eval_prompts:
        said = (
            f"metric {metric.name} needs evaluation records with a prompt and an answer; none of "
            f"{data.eval.source} has one that fits (format {data.format})"
        )
        raise ConfigError([problem_at(("metric", "name"), said)])


def _source_of(section: MetricSection, problem_at: Callable[[KeyPath, str], Problem]) -> tuple[str, str]:
    module, _, function = section.name.partition(":")
    key = ("metric", "name" if section.file is None else "file")
    file = section.file or _importable(module)
    if file is None:
        said = (
            f"metric: there is no module {module!r}: neither {module.replace('.', '/')}.py beside the sweep "
            "file nor one that Python can import"
        )
        raise ConfigError([problem_at(key, said)])
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
    # What `load_function` has run once has no spec, and would hide the file from a second plan.
    known = sys.modules.get(module)
    hiding = known if known is not None and known.__spec__ is None and module != "__main__" else None
    if hiding is not None:
        del sys.modules[module]
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    finally:
        if hiding is not None:
            sys.modules[module] = hiding
    if found is None or not found.has_location or found.origin is None or not found.origin.endswith(".py"):
        return None
    return found.origin
