"""A sweep on a surface: searched without a model of the losses, read by the program like any other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.simulator.noise import Noise
from benchmarks.simulator.surface import Assigned, Surface
from benchmarks.simulator.worlds import MAX_STEPS, World, space
from results.sweep_result import SweepResult, TrialResult, hyperparameters
from results.verdict.verdict import verdict
from search_spaces import DEFAULT_LABEL, Dimension, Guidelines, SearchSpace, load_guidelines
from sweeps.plan.specs import StudySpec
from sweeps.plan.trial_kinds import first_trials

STARTUP = 10
"""Trials at random before the search goes where the loss is low."""
GOOD_SHARE = 0.25
REPORT_AT = (20, 40, 60, 80, 100)


@dataclass(frozen=True, kw_only=True)
class SimulatedSweep:
    """A finished sweep and what it was drawn from."""

    world: World
    surface: Surface | Assigned
    sweep: SweepResult
    study_spec: StudySpec


def study_spec(made: SearchSpace, *, trials: int, run_folder: str, seed: int = 0) -> StudySpec:
    """What the program's keeper and its plan of replicates need to know of such a sweep."""
    context = made.context
    return StudySpec(
        name="simulated",
        run_folder=run_folder,
        space=made,
        trials=trials,
        search={
            "sampler": "random",
            "sampler_options": {},
            "pruner": "none",
            "pruner_options": {},
            "seed": seed,
            "startup_trials": None,
        },
        report_at=REPORT_AT,
        constants={"max_steps": MAX_STEPS, "per_device_train_batch_size": 8, "lora_r": 16, "seed": seed},
        scheduler_kwargs={},
        identity={},
        context={
            "method": "qlora",
            "quantization": "nf4",
            "model_size": context["model_size"],
            "max_steps": MAX_STEPS,
            "train_embeddings": context["train_embeddings"],
            "scenario": context["scenario"],
        },
        guidelines=[row.to_dict() for row in load_guidelines().values()],
    )


def simulate_sweep(
    world: World,
    generator: np.random.Generator,
    *,
    model_size: float,
    trials: int = 32,
    run_folder: str = "unused",
) -> SimulatedSweep:
    """A sweep of this world: the tables' values first, then a search; half of it is stopped early.

    Guideline rows that do not apply are left out, so that a verdict costs little. A sweep of assigned costs
    has two trials, its best and the guideline default.
    """
    made = space(world.num_dimensions, model_size)
    spec = study_spec(made, trials=trials, run_folder=run_folder, seed=int(generator.integers(1 << 31)))
    surface = world.draw(generator)
    if isinstance(surface, Assigned):
        found = _two_trials(surface, made, spec, generator)
    else:
        found = _search(surface, world.noise, made, spec, generator)
    sweep = SweepResult(
        name=spec.name,
        metric="eval_loss",
        trials=found,
        dimensions={dimension.name: dimension for dimension in made.dimensions},
        guidelines=list(Guidelines.from_list(spec.guidelines).values()),
        context=spec.context,
        base_eval_loss=1.5 * surface.base_loss,
    )
    applying = [
        row.row
        for row in verdict(sweep, has_model=False).rows
        if row.measurement.applies and row.row.topic != "stability"
    ]
    return SimulatedSweep(
        world=world, surface=surface, sweep=replace(sweep, guidelines=applying), study_spec=spec
    )


def draw_params(made: SearchSpace, generator: np.random.Generator) -> dict[str, Any]:
    """A value of every active dimension, uniform (in log where the dimension is)."""
    params: dict[str, Any] = {}
    for dimension in made.dimensions:
        if dimension.is_active(params):
            params[dimension.name] = _draw(dimension, generator)
    return params


def _draw(dimension: Dimension, generator: np.random.Generator) -> Any:
    if dimension.choices is not None:
        return dimension.choices[int(generator.integers(len(dimension.choices)))]
    low, high = dimension.bounds()
    if dimension.log:
        return math.exp(generator.uniform(math.log(low), math.log(high)))
    return float(generator.uniform(low, high))


def _beside(params: Mapping[str, Any], made: SearchSpace, generator: np.random.Generator) -> dict[str, Any]:
    """Values near those of a good trial; a tenth of each range away, names kept in four of five."""
    near: dict[str, Any] = {}
    for dimension in made.dimensions:
        if not dimension.is_active(near):
            continue
        name = dimension.name
        if name not in params or (dimension.choices is not None and generator.random() < 0.2):
            near[name] = _draw(dimension, generator)
        elif dimension.choices is not None:
            near[name] = params[name]
        else:
            low, high = dimension.bounds()
            to, back = (math.log, math.exp) if dimension.log else (float, float)
            step = 0.1 * (to(high) - to(low)) * generator.normal()
            near[name] = back(min(max(to(params[name]) + step, to(low)), to(high)))
            near[name] = min(max(near[name], low), high)
    return near


def _search(
    surface: Surface, noise: Noise, made: SearchSpace, spec: StudySpec, generator: np.random.Generator
) -> list[TrialResult]:
    """The program's first trials, then chance, then values near good ones; at 20% the worse half ends."""
    first = first_trials(spec)
    seed_effect = noise.seed_effect(generator)
    found: list[TrialResult] = []
    early: list[float] = []
    for number in range(spec.trials):
        good = sorted((t for t in found if t.eval_loss is not None), key=lambda trial: trial.eval_loss or 0.0)
        if number < len(first):
            params: dict[str, Any] = dict(first[number].params)
        elif number < max(STARTUP, len(first)) or not good or generator.random() < 0.2:
            params = draw_params(made, generator)
        else:
            chosen = good[int(generator.integers(max(1, round(GOOD_SHARE * number))) % len(good))]
            params = _beside(chosen.params, made, generator)
        loss = noise.run(surface, params, seed_effect, generator)
        at_rung = math.inf if loss is None else loss * (1.2 + 0.004 * generator.normal())
        is_pruned = number > 0 and sum(at_rung > other for other in early) > max(0, (len(early) + 1) // 2 - 1)
        early.append(at_rung)
        outcome = "diverged" if loss is None else "pruned" if is_pruned else "complete"
        told = first[number] if number < len(first) else None
        found.append(
            _trial(
                number,
                params,
                loss if outcome == "complete" else None,
                spec,
                outcome=outcome,
                label="" if told is None else told.label,
                rows=() if told is None else told.rows,
            )
        )
    return found


def _two_trials(
    surface: Assigned, made: SearchSpace, spec: StudySpec, generator: np.random.Generator
) -> list[TrialResult]:
    """A random best, then the guideline default: the first configuration costs 0."""
    default = made.first_trials[0]
    best = draw_params(made, generator)
    while best["lr_scheduler_type"] == default.params["lr_scheduler_type"]:
        best = draw_params(made, generator)
    # The best is the best of a sweep by luck: its one run lies below all others.
    loss = 0.98 * surface.loss(best)
    return [
        _trial(0, best, loss, spec),
        _trial(
            1,
            default.params,
            surface.loss(default.params),
            spec,
            label=default.label or DEFAULT_LABEL,
            rows=default.rows,
        ),
    ]


def _trial(
    number: int,
    params: Mapping[str, Any],
    loss: float | None,
    spec: StudySpec,
    *,
    outcome: str = "complete",
    label: str = "",
    rows: tuple[str, ...] = (),
) -> TrialResult:
    config = spec.trial_config(params).to_dict()
    return TrialResult(
        number=number,
        values=hyperparameters(params, config, spec.context),
        eval_loss=loss,
        outcome=outcome,
        percent=100 if outcome == "complete" else 20,
        last_eval_loss=loss,
        label=label,
        rows=rows,
        config=config,
        params=dict(params),
    )
