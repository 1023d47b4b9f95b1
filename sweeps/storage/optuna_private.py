"""Every private name of Optuna that is used here, with its reason; `optuna>=5,<6` is pinned for them."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna import samplers
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage

# Rows of many trials are written in one statement, which the public methods write one by one.
from optuna.storages._rdb import models as models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.storages.journal import JournalFileSymlinkLock

# What `BaseStorage.get_all_studies` returns; a storage class of ours has to name the type.
from optuna.study._frozen import FrozenStudy as FrozenStudy
from optuna.trial import FrozenTrial, Trial, TrialState

sql_session = _create_scoped_session
"""Commits, and raises what Optuna's own writes raise."""


def storage_of(study: optuna.Study) -> BaseStorage:
    """A study does not show its storage, whose methods write what a study and its trials cannot."""
    return study._storage


def url_of(study: optuna.Study) -> str:
    """The URL of the storage that a study was opened in, past the cache that Optuna puts before it."""
    storage = study._storage
    return str(getattr(storage if hasattr(storage, "url") else getattr(storage, "_backend", None), "url", ""))


def study_id_of(study: optuna.Study | FrozenStudy) -> int:
    """Methods of a storage take the study's id."""
    return study._study_id


def trial_id_of(trial: FrozenTrial | Trial) -> int:
    """Methods of a storage take the trial's id, which is not its number."""
    return trial._trial_id


class OpenedRDBStorage(RDBStorage):
    """Optuna's database storage, with two private methods made public."""

    def create_trial(self, study_id: int, template: FrozenTrial | None) -> FrozenTrial:
        """`create_new_trial` returns the id alone, and reading the trial back takes six statements."""
        return self._create_new_trial(study_id, template)

    def set_param(
        self,
        trial_id: int,
        name: str,
        value: float,
        distribution: BaseDistribution,
        earlier: BaseDistribution | None,
    ) -> None:
        """`set_trial_param` searches the study for the parameter's earlier distribution every time."""
        self._set_trial_param(trial_id, name, value, distribution, earlier)


class MarkedSymlinkLock(JournalFileSymlinkLock):
    """The lock of Optuna's own journal writers; no argument sets where its symbolic link points to."""

    def __init__(self, path: Path, target: str) -> None:
        super().__init__(str(path))
        self._lock_target_file = target
        self.link = self._lock_file
        self.target = target


class PartialGridSampler(samplers.GridSampler):
    """Optuna's grid without some of its points; its constructor takes whole grids only."""

    def __init__(
        self, search_space: dict[str, Any], seed: int, *, keep: Callable[[dict[str, Any]], bool]
    ) -> None:
        super().__init__(search_space, seed=seed)
        names = self._param_names
        self._all_grids = [point for point in self._all_grids if keep(dict(zip(names, point, strict=True)))]
        self.num_points = self._n_min_trials = len(self._all_grids)

    def is_of_this_grid(self, trial: FrozenTrial) -> bool:
        """Whether the trial was given a point of this grid, not of one from before the space changed."""
        attributes = trial.system_attrs
        return "grid_id" in attributes and self._same_search_space(attributes["search_space"])


class SeenStudy:
    """A study as its sampler is shown it; samplers read trials by a private method of theirs."""

    def __init__(
        self, study: optuna.Study, seen: Callable[[list[FrozenTrial]], Sequence[FrozenTrial]]
    ) -> None:
        self._study, self._trials = study, list(seen(study.get_trials(deepcopy=False)))

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials as they are shown."""
        return [trial for trial in self._trials if states is None or trial.state in states]

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return self.get_trials(deepcopy, states)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)
