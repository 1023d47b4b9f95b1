"""Optuna's samplers by the names of a sweep file, and one of our own (`curve_gp`)."""

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
from sweeps.storage.optuna_private import PartialGridSampler
from sweeps.study.sampling.seeing_sampler import SeeingSampler
from sweeps.study.sampling.seen_trials import in_present_space, with_pruned_values


class GridSampler(PartialGridSampler):
    """Optuna's grid for ask and tell, without points that differ only in an inactive dimension."""

    def __init__(self, space: SearchSpace, points: int, seed: int) -> None:
        # The guideline default is every sweep's first trial, so the grid leaves it out.
        known = {tuple(sorted(trial.params.items())) for trial in space.first_trials[:1]}

        def is_new(params: Mapping[str, Any]) -> bool:
            num_known = len(known)
            known.add(tuple(sorted(space.active(params).items())))
            return len(known) > num_known

        super().__init__(space.grid(points), seed, keep=is_new)

    def has_points_left(self, study: optuna.Study) -> bool:
        """Whether a point has not been given to a trial.

        Optuna's `is_exhausted` counts finished trials alone, so points of running ones would be repeated.
        """
        taken = {
            trial.system_attrs["grid_id"]
            for trial in study.get_trials(deepcopy=False)
            if trial.state != TrialState.WAITING and self.is_of_this_grid(trial)
        }
        return len(taken) < self.num_points

    def after_trial(self, *arguments: Any, **named: Any) -> None:
        """Optuna's own stops the optimize loop, and raises without one."""


class GPSampler(samplers.GPSampler):
    """Optuna's Gaussian process, kept from repeating trials, also those that it does not look at."""

    def __init__(self, space: SearchSpace, **options: Any) -> None:
        super().__init__(**options)
        self._space = space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Optuna's proposal, or nothing (random values) if an earlier trial had it."""
        params = super().sample_relative(study, trial, search_space)
        for earlier in study.get_trials(deepcopy=False):
            had = self._space.active(earlier.params)
            if earlier.number < trial.number and had and had == self._space.active({**had, **params}):
                return {}
        return params


def make_sampler(
    search: Mapping[str, Any], space: SearchSpace, number: int, attempt: int = 0
) -> samplers.BaseSampler:
    """The sampler for trial `number`; another `attempt` draws other values.

    Its seed depends on the search's seed and the number alone, so an interrupted sweep draws the same trials
    as an uninterrupted one, and a restarted generator never repeats a trial.
    """
    seed = derived_seed(search["seed"], number, attempt)
    options = dict(search["sampler_options"])
    if search["startup_trials"] is not None:
        options["n_startup_trials"] = search["startup_trials"]
    with warnings.catch_warnings():
        # Users need not read at every trial that a part of Optuna is experimental.
        warnings.simplefilter("ignore", ExperimentalWarning)
        match search["sampler"]:
            case "tpe":
                # group: conditional dimensions get a joint model of their own.
                tpe = samplers.TPESampler(seed=seed, **{"multivariate": True, "group": True, **options})
                return SeeingSampler(tpe, space, in_present_space)
            case "random":
                return samplers.RandomSampler(seed=seed)
            case "gp":
                gp = GPSampler(space, seed=seed, warn_independent_sampling=False, **options)
                return SeeingSampler(gp, space, in_present_space, with_pruned_values)
            case "cmaes":
                cma = samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False, **options)
                return SeeingSampler(cma, space, in_present_space, with_pruned_values)
            case "curve_gp":
                from sweeps.study.curve_gp.sampler import CurveGPSampler  # only here: it imports scipy

                first = derived_seed(search["seed"], 0, attempt)
                return CurveGPSampler(space, number=number, seed=first, **options)
            case "grid":
                # The same order for all trials: the study holds which points are taken.
                return GridSampler(space, options.get("points_per_dimension", 5), search["seed"])
    raise ValueError(f"unknown sampler {search['sampler']!r}")


def derived_seed(seed: int, number: int, attempt: int = 0) -> int:
    """A 32-bit seed from the search's seed and a trial's number."""
    again = f"/{attempt}" if attempt else ""
    digest = hashlib.sha256(f"{seed}/{number}{again}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
