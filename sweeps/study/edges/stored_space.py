"""The space that a study was started with, where the program's own ranges have changed since.

A study goes on with its own space as long as the sweep file asks for the same as before: its trials were
drawn from that space. Only the user's own edit of the space makes it another sweep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import optuna

from files_and_text.numbers import number_range
from files_and_text.problems import InputError
from search_spaces import Dimension, Guidelines, SearchSpace, load_guidelines
from sweeps.config import RESOLVED_NAME, SweepConfig, load_sweep, storage_url
from sweeps.errors import ConfigError, StorageUnreachable
from sweeps.study.edges.widening import WIDENED, widenings_of
from sweeps.study.study import peek

NEWER_RANGES = "newer_ranges"
"""Key of a space's context: a sentence on the ranges that this version of the program would search."""


def space_of_study(config: SweepConfig, space: SearchSpace) -> SearchSpace:
    """The space to search: `space`, or that of the config's study where only the program's ranges differ.

    Its context then says so under NEWER_RANGES. Whether the study is that of this sweep is checked elsewhere.
    """
    stored = _stored(config)
    if stored is None or stored.fingerprint() == space.fingerprint():
        return space
    changes = ", ".join(_changes(stored, space))
    text = (
        f"searched as when this study was started; this version of the program has other ranges ({changes}), "
        "which a sweep of another `name` takes"
    )
    return replace(stored, context={**stored.context, NEWER_RANGES: text})


def _stored(config: SweepConfig) -> SearchSpace | None:
    """The space of the study's sweep file; None where there is none, or the user asks for another now."""
    folder = config.run_folder
    if not (folder / RESOLVED_NAME).is_file():
        return None
    try:
        kept = load_sweep(folder, environ={}, check_files=False)
        if _asked(kept) != _asked(config):
            return None
        study = peek(storage_url(config.storage, folder), config.name)
    except (ConfigError, StorageUnreachable):  # said where the study is opened
        return None
    if study is None or ((config.guidelines or kept.guidelines) and not _has_rows(study, config)):
        return None
    return _before_widening(study)


def _has_rows(study: optuna.Study, config: SweepConfig) -> bool:
    """Whether the study was started with the rows that the config's guideline files give now."""
    try:
        rows = Guidelines.from_list(study.user_attrs["guidelines"])
    except (KeyError, InputError):
        return False
    return rows.to_list() == load_guidelines(*config.guidelines).to_list()


def _asked(config: SweepConfig) -> dict[str, Any]:
    """What the user says about the space, and what the tables' ranges depend on."""
    training = config.training
    return {
        "model": (config.model.name, config.model.size),
        "scenario": config.scenario,
        "method": config.method,
        "trains_embeddings": config.trains_embeddings,
        "budget": (training.max_steps, training.num_train_epochs),
        "include": sorted(config.search.include),
        "widen": dict(config.search.widen),
        "space": config.space,
    }


def _before_widening(study: optuna.Study) -> SearchSpace | None:
    """As the study was started: the ends that it moved by itself are put back. None if that is not known."""
    try:
        space = SearchSpace.from_dict(study.user_attrs["space"])
    except (KeyError, InputError):
        return None
    dimensions = {dimension.name: dimension for dimension in space.dimensions}
    for each in reversed(widenings_of(study)):
        moved: dict[str, Any] = {each.side: each.before}
        dimensions[each.dimension] = replace(dimensions[each.dimension], **moved)
    context = {key: value for key, value in space.context.items() if key != WIDENED}
    found = replace(space, dimensions=tuple(dimensions.values()), context=context)
    is_known = found.fingerprint() == (study.user_attrs.get("identity") or {}).get("space")
    return found if is_known else None


def _changes(stored: SearchSpace, space: SearchSpace) -> Iterator[str]:
    for name in dict.fromkeys((*space.names, *stored.names)):
        if name not in stored or name not in space:
            yield f"{'with' if name in space else 'without'} {name}"
        elif (here := _range(stored[name])) != (newer := _range(space[name])):
            yield f"{name} {newer} instead of {here}"


def _range(dimension: Dimension) -> str:
    if dimension.low is None or dimension.high is None:
        return ", ".join(map(str, dimension.choices or ()))
    return number_range(float(dimension.low), float(dimension.high))
