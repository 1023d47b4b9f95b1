"""Drawing trials: out of the tables and the sampler, into the study and the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from files_and_text.atomic_files import atomic_write_json
from files_and_text.trial_paths import trial_folder
from lora_runner.config import TrialConfig
from lora_runner.errors import TrialConfigError
from search_spaces import FirstTrial
from sweeps.artifacts.trial_folder import move_aside
from sweeps.plan.specs import StudySpec
from sweeps.study.samplers import GridSampler, make_sampler
from sweeps.study.status import DEFAULT_LABELS
from sweeps.study.study import is_prefetched, set_user_attrs

RETRY_OF = "retry_of"
"""The user attribute of a trial whose configuration failed before: the number of the first that had it."""
_OF_A_CONFIG = ("origin", "rows", "label", "arm", "seed", "drawn_again")
MOST_DRAWS = 50
"""Of one trial, before a space counts as used up."""


class TrialSource:
    """Draws the trials of one study, some of them before there is a seat for them.

    A trial drawn ahead is in the study with its configuration, and has no attempt yet. That is the only place
    where it stands, so no kill can lose it or draw it twice, and it counts among the sweep's trials.

    What drawing ahead costs: the sampler cannot know what becomes of trials that end after the draw. A spare
    is drawn when the one before it is handed out, so what it misses is the report that frees its seat: it
    knows what a trial would that was drawn for one seat more per worker. Only the first of several seats that
    one report frees gets a spare; the others are drawn with all that is known. Random search, a grid and the
    tables' own values lose nothing.
    """

    def __init__(self, study_spec: StudySpec, study: optuna.Study, note: Callable[[str], None]) -> None:
        self.study_spec = study_spec
        self.study = study
        self._note = note
        # A grid's sampler is one for all trials: the study itself remembers which points are taken.
        self._is_grid = study_spec.search["sampler"] == "grid"
        self._may_repeat = not any(
            # A share of the steps is rounded to whole ones.
            d.kind == "float" and d.low != d.high and d.name != "warmup_ratio"
            for d in study_spec.space.dimensions
        )
        self.num_failed_before = 0
        """Trials that had failed when the run began."""
        self._is_exhausted = study.user_attrs.get("exhausted") == study_spec.search["sampler"]
        if self._is_grid:
            study.sampler = make_sampler(study_spec.search, study_spec.space, 0)

    def enqueue_first_trials(self) -> None:
        """The tables' own values come first; values that are in the study already are not put there again."""
        # Most important first; at least half of the trials are left to the search. A grid is a list of its
        # own: only the trial that every verdict compares with comes before it.
        most = 1 if self._is_grid else max(1, self.study_spec.trials // 2)
        for first in self._distinct(self.study_spec.space.first_trials())[:most]:
            self.study.enqueue_trial(
                first.params,
                user_attrs={"origin": "guideline", "rows": list(first.rows), "label": first.label},
                skip_if_exists=True,
            )

    def _distinct(self, proposals: Sequence[FirstTrial]) -> list[FirstTrial]:
        """One trial for proposals that come to the same: 3% and 5% of 40 steps are two steps of warmup."""
        distinct: dict[str, FirstTrial] = {}
        for first in proposals:
            try:
                key = self.study_spec.trial_config(first.params).hash()
            except TrialConfigError:
                key = repr(first.params)  # refused when it is drawn, with its reason
            same = distinct.setdefault(key, first)
            rows = (*same.rows, *(row for row in first.rows if row not in same.rows))
            distinct[key] = replace(same, rows=rows)
        return list(distinct.values())

    def ahead(self) -> list[FrozenTrial]:
        """Trials drawn and given to nobody yet, in the order in which they were drawn."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if is_prefetched(trial)]

    def put_off(self) -> None:
        """Make the trials drawn ahead what the tables' first trials are: values that wait to be drawn.

        Nobody works on them, so none of them may stand there as running when a sweep has ended, or take a
        sweep beyond its `trials` when these were lowered. Drawn again, they get the same values.
        """
        for trial in self.ahead():
            self._let_wait(trial)

    def _let_wait(self, trial: FrozenTrial) -> None:
        self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def draw(self) -> FrozenTrial | None:
        """A new trial, described in the study and on disk; None when there is none to draw."""
        while (number := self._next_number()) is not None:
            if not self._is_grid:
                self.study.sampler = make_sampler(self.study_spec.search, self.study_spec.space, number)
                if not self._see_to_a_new_config(number):
                    return None
            trial = self.study.ask()
            params = self.study_spec.space.suggest(trial)
            try:
                config = self.study_spec.trial_config(params)
            except TrialConfigError as error:
                described = self._described(trial)
                set_user_attrs(self.study, trial, **described, outcome="failed", stop_reason=str(error))
                self.study.tell(trial.number, state=TrialState.FAIL)
                self._note(f"trial {trial.number}: failed, {error}")
                continue
            return self._put_down(trial, params, config)
        return None

    def _described(self, trial: Trial) -> dict[str, Any]:
        origin = trial.user_attrs.get("origin", "sampler")
        return {"folder": trial_folder(trial.number), "origin": origin}

    def _put_down(self, trial: Trial, params: Mapping[str, Any], config: TrialConfig) -> FrozenTrial:
        """Write what a trial is to the study and into its folder."""
        values, digest = config.to_dict(), config.hash()
        set_user_attrs(self.study, trial, **self._described(trial), config=values, config_hash=digest)
        folder = Path(self.study_spec.run_folder) / trial_folder(trial.number)
        if moved := move_aside(folder):
            self._note(f"trial {trial.number}: files of an earlier study moved to {moved.name}")
        atomic_write_json(
            folder / "config.json",
            {"number": trial.number, "params": dict(params), "config": values, "config_hash": digest},
        )
        return self.study._storage.get_trial(trial._trial_id)

    def _see_to_a_new_config(self, number: int) -> bool:
        """Draw again, until it is new, where the sampler would repeat a trial; False when nothing is new.

        Only a space without a continuous dimension can repeat itself. There the draw is rehearsed on a copy
        of the study, because what a trial has once been given cannot be taken back.
        """
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not self._may_repeat or waiting:
            return True
        trials = self.study.get_trials(deepcopy=False)
        known = {trial.user_attrs.get("config_hash") for trial in trials}
        for attempt in range(MOST_DRAWS):
            copy = optuna.create_study(
                sampler=make_sampler(self.study_spec.search, self.study_spec.space, number, attempt)
            )
            copy.add_trials(trials)
            params = self.study_spec.space.suggest(copy.ask())
            if self.study_spec.trial_config(params).hash() not in known:
                if attempt:
                    self.study.enqueue_trial(params, user_attrs={"drawn_again": attempt})
                return True
        self._is_exhausted = True
        self.study.set_user_attr("exhausted", self.study_spec.search["sampler"])
        self._note(f"no configuration is new after {MOST_DRAWS} draws: the space holds no more")
        return False

    def try_failed_again(self) -> None:
        """Let configurations that failed wait to be drawn once more, as many as the sweep has room for.

        As trials of their own: what is told of a trial stays as it was. The guideline default comes first.
        """
        failed = [trial for trial in open_failures(self.study) if trial.params]
        failed.sort(key=lambda trial: (not _is_default(trial), trial.number))
        for trial in failed[: max(0, self.study_spec.trials - self._num_taken(with_default=False))]:
            kept = {name: trial.user_attrs[name] for name in _OF_A_CONFIG if name in trial.user_attrs}
            self.study.enqueue_trial(trial.params, user_attrs=kept | {RETRY_OF: _root(trial)})
            self._note(f"trial {trial.number}: failed earlier, its configuration is tried again")

    def has_failed_too_often(self) -> bool:
        """Whether the run has reached its limit on failures."""
        failed = self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        return len(failed) - self.num_failed_before >= self.study_spec.reliability.max_failures

    def has_more(self) -> bool:
        """Whether there is a trial that nobody has been given yet."""
        return bool(self.ahead()) or self._next_number() is not None

    def _next_number(self) -> int | None:
        """Which draw of the sampler is next, counted from 0; None when there is none to draw."""
        if self._num_taken() >= self.study_spec.trials or self.has_failed_too_often():
            return None
        sampler = self.study.sampler
        is_used_up = self._is_exhausted or (
            isinstance(sampler, GridSampler) and not sampler.has_points_left(self.study)
        )
        if is_used_up and not self._has_waiting():
            return None
        # A configuration that is tried again was drawn before: the sweep goes on as if nothing had failed.
        drawn = self.study.get_trials(deepcopy=False)
        return sum(trial.state != TrialState.WAITING and RETRY_OF not in trial.user_attrs for trial in drawn)

    def _has_waiting(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _num_taken(self, *, with_default: bool = True) -> int:
        """Trials of the sweep's number that are drawn and did not fail.

        The guideline default keeps its place although it failed: every verdict compares with it.
        """
        trials = self.study.get_trials(deepcopy=False)
        taken = sum(trial.state not in (TrialState.WAITING, TrialState.FAIL) for trial in trials)
        default = [trial.state for trial in trials if _is_default(trial)]
        return taken + (with_default and bool(default) and set(default) == {TrialState.FAIL})


def open_failures(study: optuna.Study) -> list[FrozenTrial]:
    """The last failed trial of every configuration that was not tried again, or failed each time."""
    trials = study.get_trials(deepcopy=False)
    others = {_root(trial) for trial in trials if trial.state != TrialState.FAIL}
    last = {_root(trial): trial for trial in trials if trial.state == TrialState.FAIL}
    return [trial for root, trial in last.items() if root not in others]


def _root(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(RETRY_OF, trial.number))


def _is_default(trial: FrozenTrial) -> bool:
    return trial.user_attrs.get("label") in DEFAULT_LABELS
