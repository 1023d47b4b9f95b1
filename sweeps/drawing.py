"""Drawing trials: out of the tables and the sampler, into the study and the run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from lora_runner.errors import TrialConfigError
from results.files import atomic_write_json
from sweeps.blueprint import Ledger
from sweeps.samplers import GridSampler, make_sampler
from sweeps.study import describe, is_drawn_ahead
from sweeps.trial_folder import move_aside, trial_folder


class Drawer:
    """Draws the trials of one study, some of them before there is a seat for them.

    A trial drawn ahead is in the study with its configuration, and has no attempt yet. That is the only place
    where it stands, so no kill can lose it or draw it twice, and it counts among the sweep's trials.

    What drawing ahead costs: the sampler cannot know what becomes of trials that end after the draw. A spare
    is drawn when the one before it is handed out, so what it misses is the report that frees its seat: it
    knows what a trial would that was drawn for one seat more per worker. Only the first of several seats that
    one report frees gets a spare; the others are drawn with all that is known. Random search, a grid and the
    tables' own values lose nothing.
    """

    def __init__(self, ledger: Ledger, study: optuna.Study, note: Callable[[str], None]) -> None:
        self.ledger = ledger
        self.study = study
        self._note = note
        # A grid's sampler is one for all trials: the study itself remembers which points are taken.
        self._is_grid = ledger.search["sampler"] == "grid"
        if self._is_grid:
            study.sampler = make_sampler(ledger.search, ledger.space, 0)

    def enqueue_first_trials(self) -> None:
        """The tables' own values come first; values that are in the study already are not put there again."""
        # Most important first; at least half of the trials are left to the search. A grid is a list of its
        # own: only the trial that every verdict compares with comes before it.
        most = 1 if self._is_grid else max(1, self.ledger.trials // 2)
        for first in self.ledger.space.first_trials()[:most]:
            self.study.enqueue_trial(
                first.params,
                user_attrs={"origin": "guideline", "rows": list(first.rows), "label": first.label},
                skip_if_exists=True,
            )

    def ahead(self) -> list[FrozenTrial]:
        """Trials drawn and given to nobody yet, in the order in which they were drawn."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if is_drawn_ahead(trial)]

    def put_off(self) -> None:
        """Make the trials drawn ahead what the tables' first trials are: values that wait to be drawn.

        Nobody works on them, so none of them may stand there as running when a sweep has ended, or take a
        sweep beyond its `trials` when these were lowered. Drawn again, they get the same values.
        """
        for trial in self.ahead():
            self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def draw(self) -> FrozenTrial | None:
        """A new trial, described in the study and on disk; None when there is none to draw."""
        while (number := self._next_number()) is not None:
            if not self._is_grid:
                self.study.sampler = make_sampler(self.ledger.search, self.ledger.space, number)
            trial = self.study.ask()
            params = self.ledger.space.suggest(trial)
            folder = trial_folder(trial.number)
            described = {"folder": folder, "origin": trial.user_attrs.get("origin", "sampler")}
            try:
                config = self.ledger.trial_config(params)
            except TrialConfigError as error:
                describe(self.study, trial, **described, outcome="failed", stop_reason=str(error))
                self.study.tell(trial.number, state=TrialState.FAIL)
                self._note(f"trial {trial.number}: failed, {error}")
                continue
            values, digest = config.to_dict(), config.hash()
            describe(self.study, trial, **described, config=values, config_hash=digest)
            run_folder = Path(self.ledger.run_folder)
            if moved := move_aside(run_folder / folder):
                self._note(f"trial {trial.number}: files of an earlier study moved to {moved.name}")
            atomic_write_json(
                run_folder / folder / "config.json",
                {"number": trial.number, "params": params, "config": values, "config_hash": digest},
            )
            return self.study._storage.get_trial(trial._trial_id)
        return None

    def has_more(self) -> bool:
        """Whether there is a trial that nobody has been given yet."""
        return bool(self.ahead()) or self._next_number() is not None

    def _next_number(self) -> int | None:
        """The number of the next trial; None when there is none to draw."""
        drawn = sum(t.state != TrialState.WAITING for t in self.study.get_trials(deepcopy=False))
        if drawn >= self.ledger.trials:
            return None
        sampler = self.study.sampler
        if isinstance(sampler, GridSampler) and not sampler.has_points_left(self.study):
            return None
        return drawn
