"""Runs of the guideline default and of the leading trial on new seeds, in seats idle at the sweep's end.

Once every trial has been drawn, seats fall idle one after another while the last trials end. There the two
configurations that the answer compares run again, both on the same new seeds, so that most sweeps end with a
first interval. These runs are in the sweep's own study, with `origin` "replicate", an `arm` and a `seed`, and
are no trials of the search. `confirm` takes them over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from lora_runner.config import TrialConfig
from lora_runner.protocol import FAILED
from results.comparison.constants import MIN_PAIRS
from results.devices import uses_gpus
from results.stored_trials import REPLICATE, full_budget_loss, is_frozen, is_replicate, search_trials
from search_spaces.dimension import Value
from sweeps.plan.replicate_plan import new_seeds
from sweeps.plan.specs import StudySpec
from sweeps.study.edges.widening import present_space
from sweeps.study.read_status import is_default
from sweeps.study.study import set_user_attrs

MAX_SEEDS = 4
"""One more than a first interval needs: each further look spends more of what the confirmation may err."""
BEST, DEFAULT = "best", "guideline default"
"""Names of the two arms, as in a confirmation."""
FAR = 40
"""Percent of its budget that a run must have reached at the end of the search to be waited for."""
DROPPED = "the search ended before this run on a new seed could be of use"

Record = Callable[[Trial, Mapping[str, Any], TrialConfig], FrozenTrial]
"""Writes a drawn run's configuration into the study and its folder."""


class TailReplicates:
    """Draws these runs, and says when they are not worth waiting for."""

    def __init__(
        self, study_spec: StudySpec, study: optuna.Study, record: Record, note: Callable[[str], None]
    ) -> None:
        self.study_spec, self.study = study_spec, study
        self._record, self._note = record, note
        self._wanted = study_spec.search.get("tail_replicates") if study_spec.replicates is None else False

    def draw(self) -> FrozenTrial | None:
        """The next run, recorded; None when there is nothing to compare, or all have been drawn."""
        if not self._is_wanted() or not self.has_running_search():
            return None
        # What waits would be asked for instead, as values of the tables do beyond a lowered `trials`.
        is_first = not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not is_first or (wanted := self._next()) is None:
            return None
        arm, params, seed = wanted
        self.study.enqueue_trial(dict(params), user_attrs={"origin": REPLICATE, "arm": arm, "seed": seed})
        trial = self.study.ask()
        space = present_space(self.study, self.study_spec.space)
        config = self.study_spec.trial_config(space.suggest(trial))
        return self._record(trial, trial.params, replace(config, seed=seed))

    def has_running_search(self) -> bool:
        """Whether trials of the search still run or wait for a seat; frozen ones do neither."""
        running = search_trials(self.study, (TrialState.RUNNING,))
        return not all(map(is_frozen, running))

    def drop(self, worker: int | None = None) -> list[FrozenTrial]:
        """End the runs (of one worker) that are not worth waiting for now that the search has ended."""
        trials = self.study.get_trials(deepcopy=False)
        awaited = self._awaited([trial for trial in trials if is_replicate(trial)])
        dropped = [
            trial
            for trial in trials
            if is_replicate(trial)
            and trial.state == TrialState.RUNNING
            and worker in (None, trial.user_attrs.get("worker"))
            and trial.number not in awaited
        ]
        for run in dropped:
            set_user_attrs(self.study, run, outcome=FAILED, stop_reason=DROPPED)
            self.study.tell(run.number, state=TrialState.FAIL)
            self._note(f"trial {run.number}: stopped, {DROPPED}")
        return dropped

    def _awaited(self, runs: list[FrozenTrial]) -> set[int]:
        """Numbers of the runs that, once finished, make up a first interval with those that have finished."""
        arms = self._arms()
        far = [
            run
            for run in runs
            if run.state == TrialState.COMPLETE
            or (run.state == TrialState.RUNNING and max(run.intermediate_values, default=0) >= FAR)
        ]
        by_seed = [
            [run for run in far if run.params == params and run.user_attrs.get("seed") == seed]
            for seed in {run.user_attrs.get("seed") for run in far}
            for params in arms.values()
        ]
        seeds = Counter(found[0].user_attrs["seed"] for found in by_seed if found)
        paired = {seed for seed, count in seeds.items() if count == len(arms)}
        if len(paired) < MIN_PAIRS:
            return set()
        return {run.number for found in by_seed for run in found if run.user_attrs["seed"] in paired}

    def _is_wanted(self) -> bool:
        """Where nobody said so: on GPUs. On CPU cores all seats share the same arithmetic units."""
        if self._wanted is not None:
            return bool(self._wanted)
        return uses_gpus(self.study.user_attrs)

    def _next(self) -> tuple[str, Mapping[str, Value], int] | None:
        arms = self._arms()
        if len(arms) < 2:
            return None
        trials = self.study.get_trials(deepcopy=False)
        runs = [trial for trial in trials if is_replicate(trial)]
        known = {(tuple(sorted(run.params.items())), run.user_attrs.get("seed")) for run in runs}
        for seed in new_seeds(int(self.study_spec.constants["seed"]), MAX_SEEDS):
            for arm, params in arms.items():
                if (tuple(sorted(params.items())), seed) not in known:
                    return arm, params, seed
        return None

    def _arms(self) -> dict[str, Mapping[str, Value]]:
        """The leading trial and the guideline default, both at the full budget; one of them if they are the
        same, none if one is missing."""
        finished = [
            t for t in search_trials(self.study, (TrialState.COMPLETE,)) if full_budget_loss(t) is not None
        ]
        default = next(filter(is_default, finished), None)
        if default is None:
            return {}
        best = min(finished, key=lambda trial: (full_budget_loss(trial), trial.number))
        if best.number == default.number:
            return {}
        return {BEST: best.params, DEFAULT: default.params}
