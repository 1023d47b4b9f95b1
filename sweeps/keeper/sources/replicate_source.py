"""Draws the trials of a confirm study from its plan, until the answer is clear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from results.comparison.stopping import is_clear
from results.verdict.replicates import read_replicates
from sweeps.keeper.sources.trial_source import TrialSource
from sweeps.plan.replicate_plan import ReplicatePlan
from sweeps.plan.specs import StudySpec
from sweeps.study.study import ENDED_STATES


class ReplicateSource(TrialSource):
    """Draws (arm, seed) in the plan's order, and resumes an interrupted plan.

    A trial's user attributes `arm` and `seed` say which run of the plan it is. Once the answer is clear, no
    more runs are started; those that are running finish and count.
    """

    def __init__(
        self, study_spec: StudySpec, study: optuna.Study, note: Callable[[str], None], plan: ReplicatePlan
    ) -> None:
        super().__init__(study_spec, study, note)
        self.plan = plan
        # All values are enqueued, but Optuna wants a sampler.
        study.sampler = RandomSampler(seed=0)
        self._num_ended, self._is_clear = -1, False

    def enqueue_first_trials(self) -> None:
        """Record the plan's arms and margin; it has no first trials."""
        if "arms" not in self.study.user_attrs:
            self.study.set_user_attr("arms", self.plan.described())
        if self.study.user_attrs.get("margin") != self.plan.margin:
            self.study.set_user_attr("margin", self.plan.margin)

    def prefetched(self) -> list[FrozenTrial]:
        """Runs that are drawn and have no seat yet; none once the answer is clear."""
        return [] if self._is_settled() else super().prefetched()

    def draw(self) -> FrozenTrial | None:
        """The next run of the plan; None when there is none or the answer is clear."""
        if (number := self._next_number()) is None:
            if self._is_settled():
                self.requeue_prefetched()
            return None
        if not self._has_waiting():
            arm, seed = self.plan.run(number)
            self.study.enqueue_trial(
                dict(arm.values), user_attrs={"origin": "confirm", "arm": arm.name, "seed": seed}
            )
        trial = self.study.ask()
        params = self.study_spec.space.suggest(trial)
        config = replace(self.study_spec.trial_config(params), seed=trial.user_attrs["seed"])
        return self.record(trial, params, config)

    def _next_number(self) -> int | None:
        """As for any study, but no other run takes the place of a failed one."""
        number = None if self._is_settled() else super()._next_number()
        return number if self._has_waiting() or (number is not None and number < self.plan.size) else None

    def _is_settled(self) -> bool:
        """`is_settled`, computed again only after another run has ended."""
        num_ended = len(self.study.get_trials(deepcopy=False, states=ENDED_STATES))
        if num_ended != self._num_ended:
            before, self._num_ended = self._is_clear, num_ended
            self._is_clear = is_settled(self.study, self.plan)
            if self._is_clear and not before:
                self._note(f"the answer is clear after {num_ended} runs: no more are started")
        return self._is_clear


def trial_source_for(study_spec: StudySpec, study: optuna.Study, note: Callable[[str], None]) -> TrialSource:
    """The source of this study's trials."""
    if study_spec.replicates is None:
        return TrialSource(study_spec, study, note)
    return ReplicateSource(study_spec, study, note, study_spec.replicates)


def is_settled(study: optuna.Study, plan: ReplicatePlan) -> bool:
    """Whether the runs that have ended answer the plan's question at its margin."""
    if not plan.stops_early:
        return False
    return is_clear(plan.arms, read_replicates(study).runs, margin=plan.margin)
