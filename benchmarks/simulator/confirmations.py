"""A confirmation of a simulated sweep: arms, plan, order and words are the program's, losses are drawn."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from benchmarks.simulator.sweeps import SimulatedSweep
from results.verdict.replicates import Replicates, read_replicates
from results.verdict.verdict import Verdict, verdict
from sweeps.confirm.one_rate import pick_rate
from sweeps.confirm.request import ConfirmRequest
from sweeps.confirm.study_specs import confirm_study_spec, tuning_study_spec
from sweeps.keeper.sources.replicate_source import ReplicateSource
from sweeps.plan.specs import StudySpec
from sweeps.storage.cached_storage import CachedStorage
from sweeps.storage.optuna_private import storage_of, trial_id_of

MARGIN = 0.005


class MemoryStorage(InMemoryStorage):  # type: ignore[misc]
    """What the keeper needs of a storage beyond Optuna's interface, in memory."""

    url = "memory"

    def create_trial(self, study_id: int, template: FrozenTrial | None) -> FrozenTrial:
        self.create_new_trial(study_id, template)
        return self.get_all_trials(study_id, deepcopy=False)[-1]

    def set_param(
        self,
        trial_id: int,
        name: str,
        value: float,
        distribution: BaseDistribution,
        earlier: BaseDistribution | None,
    ) -> None:
        self.set_trial_param(trial_id, name, value, distribution)

    def add_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self.set_trial_user_attr(trial_id, key, value)

    def add_intermediate_values(self, values: Sequence[tuple[int, int, float]]) -> None:
        for trial_id, step, value in values:
            self.set_trial_intermediate_value(trial_id, step, value)


@dataclass(frozen=True, kw_only=True)
class Look:
    """The verdict after so many runs, the tuning of one rate included."""

    num_runs: int
    verdict: Verdict
    replicates: Replicates
    is_last: bool
    arms: Mapping[str, Mapping[str, Any]]
    """Arm -> its parameters."""


def simulate_confirmation(
    simulated: SimulatedSweep,
    generator: np.random.Generator,
    *,
    runs: int | None = None,
    seats: int | None = None,
    look_at: str = "rounds",
    margin: float = MARGIN,
) -> Iterator[Look]:
    """Looks at a confirmation of at most `runs` runs (None: the program's own budget), the last one marked.

    `seats` runs are under way at once and end in random order, each seat taking the next run at once; None:
    as many as there are arms, which end together, as in a pack. `look_at`: `runs` looks after every run,
    `rounds` after as many as there are arms.
    """
    world, surface, sweep = simulated.world, simulated.surface, simulated.sweep
    request = ConfirmRequest(margin=margin, trials=runs)
    one_rate, num_tuned = None, 0
    tuning = tuning_study_spec(simulated.study_spec, sweep, request)
    if tuning is not None and tuning.replicates is not None:
        effect = world.noise.seed_effect(generator)
        arms = tuning.replicates.arms
        drawn = {arm.name: world.noise.run(surface, arm.values, effect, generator) for arm in arms}
        one_rate = pick_rate(arms, {name: loss for name, loss in drawn.items() if loss is not None})
        num_tuned = len(arms)
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
        spec = replace(simulated.study_spec, run_folder=folder)
        spec = confirm_study_spec(spec, sweep, request, one_rate, num_tuned)
        yield from _looks(simulated, spec, generator, seats=seats, look_at=look_at, num_before=num_tuned)


def _looks(
    simulated: SimulatedSweep,
    spec: StudySpec,
    generator: np.random.Generator,
    *,
    seats: int | None,
    look_at: str,
    num_before: int,
) -> Iterator[Look]:
    assert spec.replicates is not None
    world, surface = simulated.world, simulated.surface
    arms = {arm.name: dict(arm.values) for arm in spec.replicates.arms}
    with _quiet():
        study = optuna.create_study(storage=CachedStorage(MemoryStorage()))  # type: ignore[arg-type]
        source = ReplicateSource(spec, study, lambda _: None, spec.replicates)
        source.enqueue_first_trials()
    effects: dict[int, float] = {}
    under_way: list[FrozenTrial] = []
    num_ended = 0
    while True:
        while len(under_way) < (seats or len(arms)) and (trial := source.draw()) is not None:
            storage_of(study).set_trial_user_attr(trial_id_of(trial), "attempt", 1)
            under_way.append(trial)
        if not under_way:
            break
        ending = [under_way.pop(int(generator.integers(len(under_way))))]
        if seats is None:
            ending, under_way = [*ending, *under_way], []
        for trial in ending:
            seed, arm = int(trial.user_attrs["seed"]), str(trial.user_attrs["arm"])
            effect = effects.setdefault(seed, world.noise.seed_effect(generator))
            _end(study, trial, world.noise.run(surface, arms[arm], effect, generator))
            num_ended += 1
            if look_at == "runs" or num_ended % len(arms) == 0:
                yield _look(simulated, study, arms, num_before + num_ended, is_last=False)
    yield _look(simulated, study, arms, num_before + num_ended, is_last=True)


def _end(study: optuna.Study, trial: FrozenTrial, loss: float | None) -> None:
    outcome = "diverged" if loss is None else "complete"
    storage_of(study).set_trial_user_attr(trial_id_of(trial), "outcome", outcome)
    study.tell(trial.number, loss, state=TrialState.PRUNED if loss is None else None)


def _look(
    simulated: SimulatedSweep,
    study: optuna.Study,
    arms: Mapping[str, Mapping[str, Any]],
    num_runs: int,
    *,
    is_last: bool,
) -> Look:
    replicates = read_replicates(study)
    return Look(
        num_runs=num_runs,
        verdict=verdict(simulated.sweep, replicates, has_model=False),
        replicates=replicates,
        is_last=is_last,
        arms=arms,
    )


def _memory_folder() -> str | None:
    """Where files cost no disk writes; the keeper writes one for every run."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


@contextmanager
def _quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
