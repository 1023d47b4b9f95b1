"""Regret of samplers and pruners at equal compute, on simulated sweeps and on replayed real curves."""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning

from benchmarks.harness.report import FOLDER, machine
from benchmarks.simulator.curves import SimulatedTrials
from benchmarks.simulator.noise import Noise
from benchmarks.simulator.searches import Ended, best_by, search
from benchmarks.simulator.space_grid import lowest_cost
from benchmarks.simulator.surface import Surface
from benchmarks.simulator.sweeps import REPORT_AT, study_spec
from benchmarks.simulator.worlds import MODEL_SIZES, WORLDS, space
from files_and_text.atomic_files import atomic_write_json
from search_spaces import SearchSpace
from sweeps.plan.trial_kinds import first_trials
from sweeps.study.pruners import make_pruner
from sweeps.study.samplers import derived_seed, make_sampler

PAGE = FOLDER / "search.md"
FIGURES = FOLDER / "search.json"
COMPUTE = (8, 16, 32, 64)
"""Full trials' worth of seat time."""
SEATS = (1, 8, 32)
DIMENSIONS = (3, 5)
NOISE = Noise(percent=0.2)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A sampler with a pruner, as a sweep file names them; `qmc` is Optuna's, which sweeps do not offer."""

    sampler: str
    pruner: str = "none"
    pruner_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As the table shows it."""
        if self.pruner == "none":
            return self.sampler
        first = self.pruner_options.get("min_resource")
        return f"{self.sampler} + {self.pruner.replace('_', ' ')}" + (f" from {first}%" if first else "")

    def search(self, seed: int) -> dict[str, Any]:
        """The `search` section."""
        return {
            "sampler": self.sampler,
            "sampler_options": {},
            "pruner": self.pruner,
            "pruner_options": dict(self.pruner_options),
            "seed": seed,
            "startup_trials": None,
        }


def halving(sampler: str, first: int) -> Method:
    return Method(sampler=sampler, pruner="successive_halving", pruner_options={"min_resource": first})


METHODS = (
    Method(sampler="random"),
    Method(sampler="qmc"),
    Method(sampler="tpe"),
    halving("random", 20),
    halving("random", 40),
    halving("tpe", 20),
    halving("tpe", 40),
    Method(sampler="cmaes"),
    halving("cmaes", 40),
    Method(sampler="gp"),
    halving("gp", 40),
)


def sampler_for(method: Method, made: SearchSpace, seed: int) -> Callable[[int], optuna.samplers.BaseSampler]:
    """Samplers by trial number; the keeper makes a new one for each trial."""
    if method.sampler == "qmc":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            qmc = optuna.samplers.QMCSampler(
                seed=seed, warn_asynchronous_seeding=False, warn_independent_sampling=False
            )
        return lambda number: qmc
    section = method.search(seed)
    return lambda number: make_sampler(section, made, number)


def simulate(method: Method, num_dimensions: int, seats: int, number: int, seed: int) -> dict[str, Any]:
    """Regret by compute of one simulated sweep, in percent of the lowest loss; None before a trial ended."""
    generator = np.random.default_rng([seed, num_dimensions, number])
    made = space(num_dimensions, MODEL_SIZES[number % len(MODEL_SIZES)])
    world = WORLDS["other shapes" if number % 3 == 2 else "cliff, noise 0.2%"]
    surface = world.draw(generator)
    assert isinstance(surface, Surface)
    trials = SimulatedTrials(
        surface=surface,
        noise=NOISE,
        report_at=REPORT_AT,
        generator=generator,
        seed_effect=NOISE.seed_effect(generator),
    )
    spec = study_spec(made, trials=COMPUTE[-1], run_folder="unused")
    search_seed = derived_seed(seed, number)
    ended = search(
        trials,
        made,
        first_trials(spec),
        sampler_for(method, made, search_seed),
        make_pruner(method.search(search_seed), REPORT_AT),
        seats=seats,
        compute=COMPUTE[-1],
    )
    lowest = lowest_cost(surface, made)

    def regret(trial: Ended | None) -> float | None:
        if trial is None:
            return None
        return max(0.0, 100 * ((100 + surface.cost(trial.params)) / (100 + lowest) - 1))

    true_best = min(ended, key=lambda trial: surface.cost(trial.params))
    return {
        "regret": [regret(best_by(ended, 100 * compute / seats)) for compute in COMPUTE],
        "trials": len(ended),
        "killed": true_best.outcome == "pruned",
    }


def main() -> None:
    """Run the chosen methods, and with --save keep the figures and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=40, help="simulated sweeps of each line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=None, help="names; default: all")
    parser.add_argument("--seats", type=int, nargs="*", default=list(SEATS))
    parser.add_argument("--dimensions", type=int, nargs="*", default=list(DIMENSIONS))
    parser.add_argument("--save", action="store_true", help="keep the figures in results/reference/")
    parser.add_argument("--file", type=Path, default=FIGURES)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for method in METHODS:
        if options.methods is not None and method.name not in options.methods:
            continue
        for num_dimensions in options.dimensions:
            for seats in options.seats:
                began = time.monotonic()
                found = [
                    simulate(method, num_dimensions, seats, number, options.seed)
                    for number in range(options.sweeps)
                ]
                figures = summary(found) | {"seconds": time.monotonic() - began}
                print(f"{method.name}, {num_dimensions} dimensions, {seats} seats: {figures}", flush=True)
                if options.save:
                    keep(f"{method.name}|{num_dimensions}|{seats}", figures, options)


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean regret and its Monte-Carlo error by compute, trials of a sweep, sweeps that killed their best."""
    columns: list[list[float] | None] = []
    for index in range(len(COMPUTE)):
        values = [one["regret"][index] for one in found]
        if None in values:
            columns.append(None)
            continue
        error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        columns.append([fmean(values), error])
    return {
        "sweeps": len(found),
        "regret": columns,
        "trials": fmean(one["trials"] for one in found),
        "killed": fmean(one["killed"] for one in found),
    }


def keep(key: str, figures: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Add one line to the figures, and write the page anew."""
    path: Path = options.file
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    lines = kept.get("lines", {}) | {key: figures}
    atomic_write_json(path, {"machine": machine(), "seed": options.seed, "lines": lines})


if __name__ == "__main__":
    main()
