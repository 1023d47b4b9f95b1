"""The search space of a config, and what is wrong with what the user says about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from files_and_text.checks import Checks
from files_and_text.nearest_name import nearest
from files_and_text.problems import InputError, Problem
from files_and_text.yaml_lines import KeyPath, Lines
from search_spaces import Guidelines, SearchSpace, load_guidelines, space_for
from search_spaces.overrides import read_overrides
from sweeps.config.draft import Draft
from sweeps.config.fields import shown
from sweeps.config.sweep_config import SweepConfig
from sweeps.errors import ConfigError

# What the space depends on beside the overrides themselves.
_SPACE_KEYS: tuple[KeyPath, ...] = (
    ("model", "size"),
    ("training", "max_steps"),
    ("train_embeddings",),
    ("search", "include"),
    ("search", "widen"),
)


def space_of(
    config: SweepConfig, *, model_size: float | None = None, max_steps: int | None = None
) -> SearchSpace:
    """The search space of a sweep.

    `model_size` (parameters) and `max_steps` (optimizer steps) stand in for what the config leaves to be
    counted: a model without `size`, a budget in epochs. Raises ConfigError when the space contradicts itself.
    """
    size = config.model.size or model_size
    steps = config.training.max_steps or max_steps
    if size is None or steps is None:
        raise TypeError("space_of needs model_size and max_steps where the config does not give them.")
    try:
        return _space(config, load_guidelines(*config.guidelines), size, steps)
    except InputError as error:
        raise ConfigError(error.problems) from None


def space_findings(draft: Draft, config: SweepConfig) -> Iterator[tuple[KeyPath, str] | Problem]:
    """What is wrong with the guideline files (problems of their own lines), the scenario and the space."""
    guidelines: Guidelines | None = None
    if draft.is_sound("guidelines") and all(Path(file).is_file() for file in config.guidelines):
        try:
            guidelines = load_guidelines(*config.guidelines)
        except InputError as error:
            yield from error.problems
    scenario_known = False
    if guidelines is not None and draft.is_sound("scenario"):
        scenario_known = config.scenario in guidelines.scenarios()
        if not scenario_known:
            hint = nearest(config.scenario, guidelines.scenarios())
            yield ("scenario",), f"scenario must be one of the tables'; got {shown(config.scenario)}.{hint}"
    if not draft.is_sound("space"):
        return
    keys = _numbered(config.space)
    lines = {key: number for number, key in enumerate(keys)}
    checks = Checks(None, lines)
    overrides = read_overrides(config.space, checks, ("space",))
    if (
        "embedding_lr_ratio" in overrides
        and not config.trains_embeddings
        and draft.is_sound("train_embeddings")
    ):
        checks.add(
            "space.embedding_lr_ratio has no effect: train_embeddings is false",
            ("space", "embedding_lr_ratio"),
        )
    size, steps = config.model.size, config.training.max_steps
    sound = scenario_known and not checks.problems and all(draft.is_sound(*key) for key in _SPACE_KEYS)
    if guidelines is not None and sound and size is not None and steps is not None:
        # Only with the true size and length: an end that the user leaves open comes from their rows.
        try:
            _space(config, guidelines, size, steps, lines)
        except InputError as error:
            checks.problems = error.problems
    for problem in checks.problems:
        yield keys[problem.line or 0], problem.message


def _space(
    config: SweepConfig, guidelines: Guidelines, size: float, steps: int, lines: Lines | None = None
) -> SearchSpace:
    return space_for(
        scenario=config.scenario,
        model_size=size,
        max_steps=steps,
        train_embeddings=config.trains_embeddings,
        method=config.method,
        include=config.search.include,
        overrides=config.space,
        widen=config.search.widen,
        guidelines=guidelines,
        lines=lines,
    )


def _numbered(space: dict[str, Any]) -> list[KeyPath]:
    """Every key path of the overrides.

    `search_spaces` tells where a problem stands by a line. Given a path's place in this list as its line, it
    tells the path, which also finds the keys that came from the command line.
    """
    keys: list[KeyPath] = []

    def walk(value: Any, key: KeyPath) -> None:
        keys.append(key)
        if isinstance(value, dict):
            for name, item in value.items():
                walk(item, (*key, name))
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                walk(item, (*key, index))

    walk(space, ("space",))
    return keys
