"""Regret of samplers and pruners at equal compute, on simulated sweeps and on replayed real curves."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner

from benchmarks.harness.report import FOLDER, machine
from benchmarks.simulator.curves import SimulatedTrials
from benchmarks.simulator.noise import Noise
from benchmarks.simulator.replays import ReplayedTrials, read_models
from benchmarks.simulator.searches import Trials, best_by, search
from benchmarks.simulator.space_grid import lowest_cost
from benchmarks.simulator.surface import Surface
from benchmarks.simulator.sweeps import REPORT_AT, study_spec
from benchmarks.simulator.worlds import MODEL_SIZES, WORLDS, space
from files_and_text.atomic_files import atomic_write, atomic_write_json
from search_spaces import SearchSpace
from search_spaces.search_space import FirstTrial
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
INTRODUCTION = """\
Regret: how far the true loss of the best finished trial lies above the lowest of the space, percent of it,
after the seat time of so many full trials; ± is the Monte-Carlo standard error over sweeps. Sweeps are
simulated (`benchmarks/simulator`): two in three with a cliff, the others a bowl, a plateau, two basins, a
narrow or a flat optimum; noise of 0.2%, reports at 20, 40, 60, 80 and 100%. The tables' values are every
method's first trials. 3 dimensions: learning rate, scheduler, warmup; 5: also embedding ratio and rank; 2:
learning rate and rank of a published table, interpolated. Of the same number, all methods search the same
sweep. best stopped: sweeps whose truly best trial was pruned, or frozen to the end. An empty cell: no trial
had ended.

    python -m benchmarks.search --save
    python -m benchmarks.search --table published_lora_sft_sweeps.csv --save"""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A sampler with a pruner, as a sweep file names them; `qmc` is Optuna's, which sweeps do not offer."""

    sampler: str
    pruner: str = "none"
    """`freeze_thaw` beside `curve_gp`: what is stopped may go on later."""
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
    Method(sampler="curve_gp"),
    halving("curve_gp", 40),
    Method(sampler="curve_gp", pruner="freeze_thaw", pruner_options={"min_resource": 40}),
    Method(sampler="curve_gp", pruner="freeze_thaw", pruner_options={"min_resource": 20}),
)


def pruner_for(method: Method, made: SearchSpace, seed: int) -> BasePruner:
    """As the keeper makes it."""
    return make_pruner(method.search(seed), REPORT_AT, earliest=0, space=made)


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


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One sweep to search: where losses come from, and what every configuration truly costs."""

    trials: Trials
    space: SearchSpace
    first: Sequence[FirstTrial]
    regret: Callable[[Mapping[str, Any]], float]
    """Percent of the lowest loss."""


def problem(num_dimensions: int, number: int, seed: int, table: Path | None = None) -> Problem:
    """A simulated sweep of 3 or 5 dimensions; of 2, a model of a published table."""
    generator = np.random.default_rng([seed, num_dimensions, number])
    if num_dimensions == 2:
        assert table is not None
        models = read_models(table)
        model = models[number % len(models)]
        return Problem(
            trials=ReplayedTrials(model=model, generator=generator),
            space=model.space,
            first=(),
            regret=lambda params: 100 * (model.loss(params) / model.lowest - 1),
        )
    made = space(num_dimensions, MODEL_SIZES[number % len(MODEL_SIZES)])
    surface = WORLDS["other shapes" if number % 3 == 2 else "cliff, noise 0.2%"].draw(generator)
    assert isinstance(surface, Surface)
    lowest = lowest_cost(surface, made)
    return Problem(
        trials=SimulatedTrials(
            surface=surface,
            noise=NOISE,
            report_at=REPORT_AT,
            generator=generator,
            seed_effect=NOISE.seed_effect(generator),
        ),
        space=made,
        first=first_trials(study_spec(made, trials=COMPUTE[-1], run_folder="unused")),
        # The grid's lowest is a little above the true one.
        regret=lambda params: max(0.0, 100 * ((100 + surface.cost(params)) / (100 + lowest) - 1)),
    )


def simulate(
    method: Method, num_dimensions: int, seats: int, number: int, seed: int, table: Path | None = None
) -> dict[str, Any]:
    """Regret by compute of one sweep; None before a trial has ended."""
    found = problem(num_dimensions, number, seed, table)
    search_seed = derived_seed(seed, number)
    ended = search(
        found.trials,
        found.space,
        found.first,
        sampler_for(method, found.space, search_seed),
        pruner_for(method, found.space, search_seed),
        seats=seats,
        compute=COMPUTE[-1],
    )
    best = [best_by(ended, 100 * compute / seats) for compute in COMPUTE]
    winner = min(ended, key=lambda trial: found.regret(trial.params))
    return {
        "regret": [None if trial is None else found.regret(trial.params) for trial in best],
        "trials": len(ended),
        "killed": winner.outcome in ("pruned", "frozen"),
    }


def main() -> None:
    """Run the chosen methods, and with --save keep the figures and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=40, help="sweeps of each line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=None, help="names; default: all")
    parser.add_argument("--seats", type=int, nargs="*", default=list(SEATS))
    parser.add_argument("--dimensions", type=int, nargs="*", default=list(DIMENSIONS))
    parser.add_argument("--table", type=Path, help="published runs (model, lr, rank, test_nll), replayed")
    parser.add_argument("--save", action="store_true", help="keep the figures in results/reference/")
    parser.add_argument("--file", type=Path, default=FIGURES, help="where they are kept")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    dimensions = options.dimensions if options.table is None else [2]
    for method in METHODS:
        if options.methods is not None and method.name not in options.methods:
            continue
        if options.table is not None and method.pruner != "none":
            continue  # it has no losses before the end
        for num_dimensions, seats in itertools.product(dimensions, options.seats):
            began = time.monotonic()
            found = [
                simulate(method, num_dimensions, seats, number, options.seed, options.table)
                for number in range(options.sweeps)
            ]
            figures = summary(found) | {"seconds": time.monotonic() - began}
            shown = " ".join(cell(regret) for regret in figures["regret"])
            print(f"{method.name}, {num_dimensions} dimensions, {seats} seats: {shown}", flush=True)
            if options.save:
                keep([method.name, num_dimensions, seats], figures, options)


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean regret and its Monte-Carlo error by compute, trials of a sweep, sweeps that stopped their best."""
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


def keep(key: Sequence[Any], figures: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Add one line to the figures, and write the page anew."""
    path: Path = options.file
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    lines = kept.get("lines", {}) | {json.dumps(key): figures}
    kept |= {"machine": machine(), "seed": options.seed, "lines": lines}
    atomic_write_json(path, kept)
    if path == FIGURES:
        atomic_write(PAGE, page(kept))


def page(kept: Mapping[str, Any]) -> str:
    """The page of all lines: a table for each number of dimensions and of seats."""
    about, lines = kept["machine"], {tuple(json.loads(key)): line for key, line in kept["lines"].items()}
    text = ["# Search at equal compute", "", *INTRODUCTION.splitlines(), ""]
    text += [f"{about['processor']}, Python {about['python']}, Optuna {about['optuna']}, {about['date']}"]
    order = {method.name: index for index, method in enumerate(METHODS)}
    for num_dimensions, seats in sorted({key[1:] for key in lines}):
        of_table = sorted(
            (key for key in lines if key[1:] == (num_dimensions, seats)),
            key=lambda key: order.get(key[0], 99),
        )
        what = "replayed table, 2 dimensions" if num_dimensions == 2 else f"{num_dimensions} dimensions"
        text += ["", f"## {what}, {seats} seat{'s' if seats > 1 else ''}", ""]
        columns = ["", *(f"{compute} trials" for compute in COMPUTE), "best stopped", "trials", "sweeps"]
        text += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        for key in of_table:
            line = lines[key]
            counts = [f"{line['killed']:.2f}", f"{line['trials']:.0f}", str(line["sweeps"])]
            text.append(f"| {' | '.join([key[0], *map(cell, line['regret']), *counts])} |")
    return "\n".join(text) + "\n"


def cell(regret: Sequence[float] | None) -> str:
    """A mean and its Monte-Carlo error."""
    return "" if regret is None else f"{regret[0]:.2f} ± {regret[1]:.2f}"


if __name__ == "__main__":
    main()
