"""The search space of a config, and what is wrong with what the sweep file says about it."""

from __future__ import annotations

from pathlib import Path

from files_and_text.nearest_name import nearest
from files_and_text.problems import InputError
from files_and_text.value_checker import ValueChecker
from files_and_text.yaml_lines import KeyPath
from search_spaces import Guidelines, SearchSpace, load_guidelines, space_for
from search_spaces.overrides import read_overrides
from sweeps.config.partial_config import PartialConfig
from sweeps.config.sweep_config import SweepConfig
from sweeps.config.validation import shown
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


def check_space(partial: PartialConfig) -> None:
    """Report what is wrong with the guideline files (at lines of their own), the scenario and the ranges."""
    config, is_sound = partial.config, partial.is_sound
    guidelines: Guidelines | None = None
    if is_sound("guidelines") and all(Path(file).is_file() for file in config.guidelines):
        try:
            guidelines = load_guidelines(*config.guidelines)
        except InputError as error:
            partial.problems += error.problems
    known_scenario = guidelines is not None and config.scenario in guidelines.scenarios()
    if guidelines is not None and not known_scenario:
        hint = nearest(config.scenario, guidelines.scenarios())
        message = f"scenario must be in the guideline tables; got {shown(config.scenario)}.{hint}"
        partial.add(("scenario",), message)
    if not is_sound("space"):
        return
    check = ValueChecker()
    overrides = read_overrides(config.space, check, ("space",))
    unused = "embedding_lr_ratio" in overrides and not config.trains_embeddings
    if unused and is_sound("train_embeddings"):
        message = "space.embedding_lr_ratio has no effect: train_embeddings is false"
        check.add(message, ("space", "embedding_lr_ratio"))
    size, steps = config.model.size, config.training.max_steps
    sound = known_scenario and not check.problems and all(is_sound(*key) for key in _SPACE_KEYS)
    if guidelines is not None and sound and size is not None and steps is not None:
        # Only with the true size and length: an end that the user leaves open comes from their rows.
        try:
            _space(config, guidelines, size, steps)
        except InputError as error:
            check.problems = error.problems
    for problem in check.problems:
        partial.add(problem.key, problem.message)


def _space(config: SweepConfig, guidelines: Guidelines, size: float, steps: int) -> SearchSpace:
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
    )
