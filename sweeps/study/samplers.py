"""Optuna's samplers by the names of a sweep file."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna import samplers
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from search_spaces import SearchSpace
from sweeps.storage.optuna_private import PartOfGridSampler


class GridSampler(PartOfGridSampler):
    """Optuna's grid for ask and tell, without points that differ only where a dimension does not exist."""

    def __init__(self, space: SearchSpace, points: int, seed: int) -> None:
        # The guideline default is every sweep's first trial, so it is no point of the grid as well.
        known = {tuple(sorted(trial.params.items())) for trial in space.first_trials()[:1]}

        def is_new(params: Mapping[str, Any]) -> bool:
            active: dict[str, Any] = {}
            for dimension in space.dimensions:
                if dimension.is_active(active):
                    active[dimension.name] = params[dimension.name]
            num_known = len(known)
            known.add(tuple(sorted(active.items())))
            return len(known) > num_known

        super().__init__(space.grid(points), seed, keep=is_new)

    def has_points_left(self, study: optuna.Study) -> bool:
        """Whether a point was given to no trial yet.

        Optuna's `is_exhausted` waits for running trials to finish, and repeats their points until then.
        """
        taken = {
            trial.system_attrs["grid_id"]
            for trial in study.get_trials(deepcopy=False)
            if trial.state != TrialState.WAITING and self.is_of_this_grid(trial)
        }
        return len(taken) < self.num_points

    def after_trial(self, *arguments: Any, **named: Any) -> None:
        """Optuna's own would stop an optimize loop, and raises where there is none."""


class GPSampler(samplers.GPSampler):
    """Optuna's Gaussian process, which sees neither pruned nor failed trials and would propose them again."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Optuna's proposal, or nothing (which means random values) when an earlier trial had it."""
        params = super().sample_relative(study, trial, search_space)
        for earlier in study.get_trials(deepcopy=False):
            if earlier.number < trial.number and params.items() <= earlier.params.items():
                return {}
        return params


def make_sampler(
    search: Mapping[str, Any], space: SearchSpace, number: int, attempt: int = 0
) -> samplers.BaseSampler:
    """The sampler for trial `number`; another `attempt` draws it again.

    Its seed is derived from the search's seed and the number, so that a sweep that was interrupted draws what
    an uninterrupted one would, and never draws the same trial twice because a generator was started anew.
    """
    seed = derived_seed(search["seed"], number, attempt)
    options = dict(search["sampler_options"])
    if search["startup_trials"] is not None:
        options["n_startup_trials"] = search["startup_trials"]
    with warnings.catch_warnings():
        # What is experimental in Optuna is for us to keep up with, not for users to read on every trial.
        warnings.simplefilter("ignore", ExperimentalWarning)
        match search["sampler"]:
            case "tpe":
                # group: conditional dimensions keep a joint model of their own; without, they lose it.
                return samplers.TPESampler(seed=seed, **{"multivariate": True, "group": True, **options})
            case "random":
                return samplers.RandomSampler(seed=seed)
            case "gp":
                return GPSampler(seed=seed, warn_independent_sampling=False, **options)
            case "cmaes":
                return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False, **options)
            case "grid":
                # One order for all numbers: the study itself remembers which points are taken.
                return GridSampler(space, options.get("points_per_dimension", 5), search["seed"])
    raise ValueError(f"unknown sampler {search['sampler']!r}")


def derived_seed(seed: int, number: int, attempt: int = 0) -> int:
    """A 32-bit seed from the search's seed and a trial's number."""
    again = f"/{attempt}" if attempt else ""
    digest = hashlib.sha256(f"{seed}/{number}{again}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
