"""Regret of samplers and pruners at equal compute, on simulated sweeps and on recorded real curves."""

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
from benchmarks.simulator.recorded import RecordedTrials, read_curves, recorded_space
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
WORLDS_OF = {"simulated": (3, 5), "recorded": (3, 5), "table": (2,)}
"""Where losses come from -> numbers of dimensions."""
DEFAULT = "tpe + successive halving from 40%"
RIVALS = ("tpe", "tpe + successive halving from 20%", "curve_gp", "curve_gp + freeze thaw from 40%")
"""Compared with the default sweep by sweep."""
REASON = """\
TPE with successive halving from 40% is the default. `curve_gp` with `freeze_thaw` has the lower regret after
64 trials, by 0.07 ± 0.02 in the mean of the simulated worlds and by 0.05 ± 0.04 on recorded curves: beyond
chance in simulation alone, and a third of the noise of one run; after 8 trials it has none (0.13 ± 0.08
higher, and 0.07 ± 0.13 lower). It needs disk for frozen checkpoints and has trained no large model yet, so it
is offered, and not the default. A first rung at 20% is better on recorded curves (by 0.07 ± 0.02), where the
best do not warm up, and not in simulation (0.02 ± 0.02 higher), where it stops the truly best trial in 28 to
65% of sweeps against 7 to 30%: it stays at 40%."""
INTRODUCTION = """\
Regret: how far the true loss of the best finished trial lies above the lowest of the space, percent of it,
after the seat time of so many full trials; ± is the Monte-Carlo standard error over sweeps. Of the same
number, all methods search the same sweep. best stopped: sweeps whose truly best trial was pruned, or frozen
to the end. An empty cell: no trial had ended.

- simulated (`benchmarks/simulator`): two sweeps in three with a cliff, the others a bowl, a plateau, two
  basins, a narrow or a flat optimum; noise of 0.2%, reports at 20, 40, 60, 80 and 100%. The tables' values
  are every method's first trials. 3 dimensions: learning rate, scheduler, warmup; 5: also embedding ratio and
  rank.
- recorded: 160 real learning curves of the demo's base (`demo-curves.csv`, drawn at random, none stopped). A
  trial gets the curve of a local fit, quadratic in the two learning rates, and what one of the eight recorded
  trials nearest to it differs from the fit. Each left out in turn, the fit misses the final losses of trials
  within 5% of the lowest by 0.43% (root mean square); the nearest trial alone would by 0.73%. One model and
  dataset: sweeps differ by their draws. 3 dimensions: rank 16, embedding ratio 0.25.
- table: learning rate and rank of a published table, interpolated; final losses only.

Lines of freeze thaw at 8 seats kept at most eight frozen trials, which in 3 simulated dimensions changed
nothing; the others kept all.

    python -m benchmarks.record_curves
    python -m benchmarks.search --save
    python -m benchmarks.search --recorded --save
    python -m benchmarks.search --table published_lora_sft_sweeps.csv --save"""
AGAINST = """\
Regret less the default's on the same sweeps, in percent of the lowest loss; ± is the standard error of the
mean difference. Below 0: better than the default, `tpe` with successive halving from 40%."""


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


def pruner_for(method: Method, made: SearchSpace, seed: int, report_at: Sequence[int]) -> BasePruner:
    """As the keeper makes it."""
    return make_pruner(method.search(seed), tuple(report_at), earliest=0, space=made)


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


def problem(source: str, num_dimensions: int, number: int, seed: int, table: Path | None = None) -> Problem:
    """A sweep of 3 or 5 dimensions, simulated or on recorded curves; of 2, a model of a published table."""
    generator = np.random.default_rng([seed, num_dimensions, number])
    if source == "table":
        assert table is not None
        models = read_models(table)
        model = models[number % len(models)]
        return Problem(
            trials=ReplayedTrials(model=model, generator=generator),
            space=model.space,
            first=(),
            regret=lambda params: 100 * (model.loss(params) / model.lowest - 1),
        )
    if source == "recorded":
        curves = read_curves()
        least = curves.lowest(num_dimensions)
        return Problem(
            trials=RecordedTrials(curves=curves, generator=generator),
            space=recorded_space(num_dimensions),
            first=(),
            regret=lambda params: max(0.0, 100 * (float(curves.mean(params)[-1]) / least - 1)),
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
    method: Method,
    num_dimensions: int,
    seats: int,
    number: int,
    seed: int,
    *,
    source: str = "simulated",
    table: Path | None = None,
) -> dict[str, Any]:
    """Regret by compute of one sweep; None before a trial has ended."""
    found = problem(source, num_dimensions, number, seed, table)
    search_seed = derived_seed(seed, number)
    ended = search(
        found.trials,
        found.space,
        found.first,
        sampler_for(method, found.space, search_seed),
        pruner_for(method, found.space, search_seed, found.trials.report_at),
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
    parser.add_argument("--dimensions", type=int, nargs="*", default=None)
    parser.add_argument("--recorded", action="store_true", help="on the recorded curves")
    parser.add_argument("--table", type=Path, help="published runs (model, lr, rank, test_nll), replayed")
    parser.add_argument("--save", action="store_true", help="keep the figures in results/reference/")
    parser.add_argument("--file", type=Path, default=FIGURES, help="where they are kept")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    source = "table" if options.table is not None else "recorded" if options.recorded else "simulated"
    for method in METHODS:
        if options.methods is not None and method.name not in options.methods:
            continue
        if source == "table" and method.pruner != "none":
            continue  # it has no losses before the end
        for num_dimensions, seats in itertools.product(
            options.dimensions or WORLDS_OF[source], options.seats
        ):
            began = time.monotonic()
            found = [
                simulate(
                    method, num_dimensions, seats, number, options.seed, source=source, table=options.table
                )
                for number in range(options.sweeps)
            ]
            figures = summary(found) | {"seconds": time.monotonic() - began}
            shown = " ".join(cell(regret) for regret in figures["regret"])
            print(f"{method.name}, {source}, {num_dimensions} dimensions, {seats} seats: {shown}", flush=True)
            if options.save:
                keep([method.name, source, num_dimensions, seats], figures, options)


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean regret and its Monte-Carlo error by compute, trials of a sweep, sweeps that stopped their best."""
    columns = [mean_and_error([one["regret"][index] for one in found]) for index in range(len(COMPUTE))]
    return {
        "sweeps": len(found),
        "regret": columns,
        "each": [[None if r is None else round(r, 4) for r in one["regret"]] for one in found],
        "trials": fmean(one["trials"] for one in found),
        "killed": fmean(one["killed"] for one in found),
    }


def mean_and_error(values: Sequence[float | None]) -> list[float] | None:
    """The mean and its standard error; None when a value is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    return [fmean(known), stdev(known) / math.sqrt(len(known)) if len(known) > 1 else math.nan]


def differences(line: Mapping[str, Any], default: Mapping[str, Any]) -> tuple[int, list[list[float] | None]]:
    """Sweeps that both lines hold, and by compute the mean of this line's regret less the default's."""
    pairs = list(zip(line.get("each", ()), default.get("each", ()), strict=False))
    return len(pairs), [
        mean_and_error(
            [
                None if mine[index] is None or theirs[index] is None else mine[index] - theirs[index]
                for mine, theirs in pairs
            ]
        )
        for index in range(len(COMPUTE))
    ]


def means(compared: Sequence[tuple[int, list[list[float] | None]]]) -> list[list[float] | None]:
    """By compute, the mean difference of the worlds that have one, each counted once, and its error."""
    columns = []
    for index in range(len(COMPUTE)):
        known = [found[index] for _, found in compared if found[index] is not None]
        error = math.sqrt(sum(difference[1] ** 2 for difference in known)) / max(1, len(known))
        columns.append([fmean(difference[0] for difference in known), error] if known else None)
    return columns


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
    """The page: the default beside its rivals, then a table for each world and number of seats."""
    about, lines = kept["machine"], {tuple(json.loads(key)): line for key, line in kept["lines"].items()}
    text = ["# Search at equal compute", "", *REASON.splitlines(), "", *INTRODUCTION.splitlines(), ""]
    text += [f"{about['processor']}, Python {about['python']}, Optuna {about['optuna']}, {about['date']}"]
    worlds = sorted({key[1:] for key in lines}, key=lambda key: (list(WORLDS_OF).index(key[0]), *key[1:]))
    order = {method.name: index for index, method in enumerate(METHODS)}
    text += ["", "## Against the default, sweep by sweep", "", *AGAINST.splitlines(), ""]
    columns = ["", "", *(f"{compute} trials" for compute in COMPUTE), "sweeps"]
    text += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for rival in RIVALS:
        compared = []
        for world in worlds:
            both = lines.get((rival, *world)), lines.get((DEFAULT, *world))
            if both[0] is not None and both[1] is not None:
                count, found = differences(both[0], both[1])
                if count > 1:
                    compared.append((world, count, found))
        rows = [(world_name(*world), count, found) for world, count, found in compared]
        for source in ("simulated", "recorded"):
            those = [(count, found) for world, count, found in compared if world[0] == source]
            if len(those) > 1:
                rows.append((f"{source}, mean of {len(those)}", sum(n for n, _ in those), means(those)))
        for name, count, found in rows:
            cells = [cell(difference, sign="+") for difference in found]
            text.append(f"| {' | '.join([rival, name, *cells, str(count)])} |")
    for world in worlds:
        of_table = sorted((key for key in lines if key[1:] == world), key=lambda key: order.get(key[0], 99))
        text += ["", f"## {world_name(*world)}", ""]
        columns = ["", *(f"{compute} trials" for compute in COMPUTE), "best stopped", "trials", "sweeps"]
        text += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        for key in of_table:
            line = lines[key]
            counts = [f"{line['killed']:.2f}", f"{line['trials']:.0f}", str(line["sweeps"])]
            text.append(f"| {' | '.join([key[0], *map(cell, line['regret']), *counts])} |")
    return "\n".join(text) + "\n"


def world_name(source: str, num_dimensions: int, seats: int) -> str:
    """As the page names it."""
    return f"{source}, {num_dimensions} dimensions, {seats} seat{'s' if seats > 1 else ''}"


def cell(regret: Sequence[float] | None, sign: str = "") -> str:
    """A mean and its Monte-Carlo error."""
    return "" if regret is None else f"{regret[0]:{sign}.2f} ± {regret[1]:.2f}"


if __name__ == "__main__":
    main()
