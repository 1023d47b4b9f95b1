"""Draws the trials of a confirm study from its plan, until every arm is decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from lora_runner.protocol import COMPLETE
from results.comparison.arms import Arm, reference
from results.comparison.stopping import undecided
from results.stored_trials import ENDED
from results.verdict.replicates import read_replicates
from sweeps.keeper.sources.trial_source import TrialSource
from sweeps.plan.replicate_plan import KnownRun, ReplicatePlan
from sweeps.plan.specs import StudySpec
from sweeps.study.study import ENDED_STATES, set_user_attrs


class ReplicateSource(TrialSource):
    """Draws (arm, seed) in the plan's order, and resumes an interrupted plan.

    A trial's user attributes `arm` and `seed` say which run of the plan it is. An arm that is decided gets no
    more runs, and once all are, none is started; those that are running finish and count.
    """

    def __init__(
        self, study_spec: StudySpec, study: optuna.Study, note: Callable[[str], None], plan: ReplicatePlan
    ) -> None:
        super().__init__(study_spec, study, note)
        self.plan = plan
        # All values are enqueued, but Optuna wants a sampler.
        study.sampler = RandomSampler(seed=0)
        self._num_ended, self._undecided = -1, frozenset[str]()
        self._wanted: Sequence[Mapping[str, int]] = ()

    def enqueue_first_trials(self) -> None:
        """Record the plan's arms, its design and margin; it has no first trials.

        The design stays that of the first plan: a study begun without one is judged by the default.
        """
        if "arms" not in self.study.user_attrs:
            self.study.set_user_attr("arms", self.plan.described())
            self.study.set_user_attr("most_seeds", self.plan.most_seeds)
            for run in self.plan.known:
                self._take_over(run)
        if self.study.user_attrs.get("margin") != self.plan.margin:
            self.study.set_user_attr("margin", self.plan.margin)

    def _take_over(self, run: KnownRun) -> None:
        """Add a run of the sweep itself as it ended, with its files where they are."""
        values = next(arm.values for arm in self.plan.arms if arm.name == run.arm)
        self.study.enqueue_trial(
            dict(values), user_attrs={"origin": "confirm", "arm": run.arm, "seed": run.seed}
        )
        trial = self.study.ask()
        params = self.study_spec.space.suggest(trial)
        config = replace(self.study_spec.trial_config(params), seed=run.seed)
        set_user_attrs(
            self.study,
            trial,
            folder=f"../{run.folder}",
            config=run.config,
            config_hash=config.hash(),
            attempt=0,
            outcome=COMPLETE,
            eval_loss=run.eval_loss,
            num_steps=config.max_steps,
            **{ENDED: trial.number, **({} if run.metric is None else {"metric": run.metric})},
        )
        metric = self.study_spec.metric
        by_metric = metric is not None and metric.objective and run.metric is not None
        value = (
            metric.cost(run.metric) if metric is not None and run.metric is not None and by_metric else None
        )
        self.study.tell(trial.number, run.eval_loss if value is None else value)

    def prefetched(self) -> list[FrozenTrial]:
        """Runs that are drawn and have no seat yet; none once every arm is decided."""
        return [] if self._is_settled() else super().prefetched()

    def draw(self) -> FrozenTrial | None:
        """The next run of the plan; None when there is none or every arm is decided."""
        if self._next_number() is None:
            if self._is_settled():
                self.requeue_prefetched()
            return None
        if not self._has_waiting():
            wanted = self._next_run()
            assert wanted is not None
            arm, seed = wanted
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
        if number is None:
            return None
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return number if any(map(self._is_wanted, waiting)) or self._next_run() else None

    def _next_run(self) -> tuple[Arm, int] | None:
        taken = {_run_of(trial) for trial in self.study.get_trials(deepcopy=False)}
        undecided = self._undecided_arms()
        return self.plan.next_run(taken, undecided, self._wanted)

    def _is_wanted(self, trial: FrozenTrial) -> bool:
        """Whether the trial's arm, or any that is compared with it, is undecided."""
        if not self.plan.stops_early:
            return True
        arm = trial.user_attrs.get("arm")
        return arm in self._undecided_arms() or (
            arm == reference(self.plan.arms).name and bool(self._undecided_arms())
        )

    def _is_settled(self) -> bool:
        return self.plan.stops_early and not self._undecided_arms()

    def _undecided_arms(self) -> frozenset[str]:
        """Found again only after another run has ended, as are the seeds that rows wait for."""
        num_ended = len(self.study.get_trials(deepcopy=False, states=ENDED_STATES))
        if num_ended != self._num_ended:
            before, self._num_ended = self._undecided, num_ended
            taken = {_run_of(trial) for trial in self.study.get_trials(deepcopy=False)}
            self._undecided, self._wanted = what_is_open(self.study, self.plan, taken)
            decided = sorted(before - self._undecided)
            if self.plan.stops_early and decided:
                names = ", ".join(repr(name) for name in decided)
                self._note(f"decided after {num_ended} runs: {names}")
                if not self._undecided:
                    self._note(f"the answer is clear after {num_ended} runs: no more are started")
        return self._undecided


def trial_source_for(study_spec: StudySpec, study: optuna.Study, note: Callable[[str], None]) -> TrialSource:
    """The source of this study's trials."""
    if study_spec.replicates is None:
        return TrialSource(study_spec, study, note)
    return ReplicateSource(study_spec, study, note, study_spec.replicates)


def what_is_open(
    study: optuna.Study, plan: ReplicatePlan, taken: Collection[tuple[str, int]]
) -> tuple[frozenset[str], tuple[Mapping[str, int], ...]]:
    """The arms that are to run on, and the seeds that some of them should have, the most urgent first.

    Open are the arms without a relation to the best at the plan's margin, and those for which a row waits.
    `taken` are the runs that were drawn.
    """
    if not plan.stops_early:
        return frozenset(arm.name for arm in plan.arms), ()
    found = read_replicates(study)
    open_arms = undecided(plan.arms, found.runs, margin=plan.margin, most_seeds=found.most_seeds)
    if plan.needs is None:
        return open_arms, ()
    seeds = Counter(arm for arm, _ in taken)
    wishes = plan.needs.wishes(plan.arms, found.runs, seeds, most_seeds=found.most_seeds)
    left = plan.size - len(taken)
    wishes.sort(key=lambda wish: wish.runs > left)  # what the budget has no runs for comes last
    return open_arms.union(*(wish.seeds for wish in wishes)), tuple(wish.seeds for wish in wishes)


def is_settled(study: optuna.Study, plan: ReplicatePlan) -> bool:
    """Whether the runs that have ended decide every arm, and no row waits for more."""
    return plan.stops_early and not what_is_open(study, plan, _ended(study))[0]


def has_next_run(study: optuna.Study, plan: ReplicatePlan) -> bool:
    """Whether the plan has a run that has not ended, those that failed included."""
    taken = _ended(study)
    return plan.next_run(taken, *what_is_open(study, plan, taken)) is not None


def _ended(study: optuna.Study) -> set[tuple[str, int]]:
    return {
        _run_of(trial)
        for trial in study.get_trials(deepcopy=False)
        if trial.state not in (TrialState.FAIL, TrialState.WAITING)
    }


def _run_of(trial: FrozenTrial) -> tuple[str, int]:
    return str(trial.user_attrs.get("arm")), int(trial.user_attrs.get("seed", -1))
