"""Drawing the trials of a confirm study: by its plan instead of a sampler, until the answer is clear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from results.verdict.replicates import read_replicates
from results.verdict.statistics import is_clear
from sweeps.keeper.trial_source import TrialSource
from sweeps.plan.replicate_plan import ReplicatePlan
from sweeps.plan.specs import StudySpec
from sweeps.study.study import ENDED_STATES


class ReplicateSource(TrialSource):
    """Hands out (arm, seed) in the plan's order; an interrupted plan goes on where it stood.

    Which run a trial is stands in its attributes `arm` and `seed`. Of a plan that has become clear nothing
    more is handed out; runs that are under way end and count.
    """

    def __init__(
        self, study_spec: StudySpec, study: optuna.Study, note: Callable[[str], None], plan: ReplicatePlan
    ) -> None:
        super().__init__(study_spec, study, note)
        self.plan = plan
        # Every value is given; Optuna asks its sampler all the same.
        study.sampler = RandomSampler(seed=0)
        self._looked_at, self._is_clear = -1, False

    def enqueue_first_trials(self) -> None:
        """A plan has no proposals; what its runs are of is written down before the first of them."""
        if "arms" not in self.study.user_attrs:
            self.study.set_user_attr("arms", self.plan.described())
        if self.study.user_attrs.get("margin") != self.plan.margin:
            self.study.set_user_attr("margin", self.plan.margin)

    def ahead(self) -> list[FrozenTrial]:
        """Trials drawn and given to nobody yet; none once the answer is clear."""
        return [] if self._is_settled() else super().ahead()

    def put_off(self) -> None:
        """Make all trials drawn ahead values that wait to be drawn, also when the answer is clear."""
        for trial in super().ahead():
            self._let_wait(trial)

    def draw(self) -> FrozenTrial | None:
        """The next run of the plan; None when there is none, or nothing left to find out."""
        if (number := self._next_number()) is None:
            if self._is_settled():
                self.put_off()
            return None
        if not self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
            arm, seed = self.plan.run(number)
            self.study.enqueue_trial(
                dict(arm.values), user_attrs={"origin": "confirm", "arm": arm.name, "seed": seed}
            )
        trial = self.study.ask()
        params = self.study_spec.space.suggest(trial)
        config = replace(self.study_spec.trial_config(params), seed=trial.user_attrs["seed"])
        return self._put_down(trial, params, config)

    def _next_number(self) -> int | None:
        """As for any sampler; a run that failed is no other run's to stand in for."""
        number = None if self._is_settled() else super()._next_number()
        return number if self._has_waiting() or (number is not None and number < self.plan.size) else None

    def _is_settled(self) -> bool:
        """Whether every arm has its relation to the best; looked at when another run has ended."""
        finished = len(self.study.get_trials(deepcopy=False, states=ENDED_STATES))
        if finished != self._looked_at:
            before, self._looked_at = self._is_clear, finished
            self._is_clear = is_settled(self.study, self.plan)
            if self._is_clear and not before:
                self._note(f"the answer is clear after {finished} runs: no more are started")
        return self._is_clear


def drawer_for(study_spec: StudySpec, study: optuna.Study, note: Callable[[str], None]) -> TrialSource:
    """What draws the trials of this ledger's study."""
    if study_spec.replicates is None:
        return TrialSource(study_spec, study, note)
    return ReplicateSource(study_spec, study, note, study_spec.replicates)


def is_settled(study: optuna.Study, plan: ReplicatePlan) -> bool:
    """Whether the runs that have ended answer what the plan asks, at its margin."""
    if not plan.stops_early:
        return False
    return is_clear(plan.arms, read_replicates(study).runs, margin=plan.margin)
