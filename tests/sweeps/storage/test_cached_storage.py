"""The keeper reads from memory what a reader finds in the database."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy
from optuna.trial import TrialState

from sweeps.keeper.keeper import Keeper
from sweeps.storage.optuna_private import storage_of, trial_id_of

TIMES = ("_datetime_start", "datetime_complete")
"""Not equal: memory and database take the time one after the other."""


def seen(trials: list[Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in vars(t).items() if name not in TIMES} for t in trials]


@pytest.mark.parametrize(
    "options", [{"startup_trials": 3}, {"sampler": "grid"}, {"sampler": "random", "pruner": "none"}]
)
def test_memory_and_database_agree_after_every_call(
    make_keeper: Callable[..., Keeper], pack: Any, stored: Any, options: dict[str, Any]
) -> None:
    def loss(config: Any, percent: int) -> float | str:
        if config.learning_rate > 4e-4:
            return "diverged" if percent == 40 else "put_back" if percent == 60 else 3.0
        return math.inf if config.lr_scheduler_type == "constant" and percent == 60 else 2.0 + 1 / percent

    keeper = make_keeper(trials=9, **options)
    simulated = pack(keeper, loss, seats=3)
    simulated.ask()
    while simulated.seats:
        assert seen(keeper.study.get_trials()) == seen(stored(keeper))
        simulated.turn()
    memory = keeper.study.get_trials()
    assert seen(memory) == seen(stored(keeper))
    assert {t.state.name for t in memory} >= {"COMPLETE", "PRUNED"}
    for mine, theirs in zip(memory, stored(keeper), strict=True):
        for name in TIMES:
            one, other = getattr(mine, name), getattr(theirs, name)
            assert (one is None) == (other is None)
            assert one is None or abs((one - other).total_seconds()) < 5


def test_trials_are_read_from_the_database_once(make_keeper: Callable[..., Keeper], pack: Any) -> None:
    keeper = make_keeper(trials=8, startup_trials=2)
    simulated = pack(keeper, seats=4)
    simulated.ask()
    reads: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "FROM trial_user_attributes" in statement or "FROM trial_params" in statement:
            reads.append(statement)

    sqlalchemy.event.listen(keeper._storage.engine, "before_cursor_execute", note)
    simulated.run()
    assert keeper.status().finished == 8
    assert reads == []


def test_a_trial_object_stays_as_it_was_read(make_keeper: Callable[..., Keeper], report: Any) -> None:
    keeper = make_keeper(trials=2)
    (placed,) = keeper.ask(0, [0]).start
    (before,) = [t for t in keeper.study.get_trials(deepcopy=False) if t.number == 0]
    keeper.report(0, [report(placed.assignment, 20, 3.0)], [], 1.0)
    keeper.report(0, [report(placed.assignment, 100, 2.0, "complete")], [], 1.0)
    assert before.intermediate_values == {}
    assert "outcome" not in before.user_attrs
    assert not before.state.is_finished()
    given = storage_of(keeper.study).get_trial(trial_id_of(before))
    given.user_attrs["mine"] = given.params["mine"] = 1
    kept = keeper.study.get_trials(deepcopy=False)[0]
    assert "mine" not in {**kept.user_attrs, **kept.params}


def test_unfinished_trials_from_the_index_are_those_found_by_searching(
    make_keeper: Callable[..., Keeper], pack: Any
) -> None:
    keeper = make_keeper(trials=9, sampler="random")
    simulated = pack(keeper, seats=3)
    simulated.ask()
    while simulated.seats:
        for states in (
            (TrialState.RUNNING,),
            (TrialState.WAITING,),
            (TrialState.RUNNING, TrialState.WAITING),
        ):
            found = keeper.study.get_trials(deepcopy=False, states=states)
            every = keeper.study.get_trials(deepcopy=False)
            assert found == [trial for trial in every if trial.state in states]
        simulated.turn()
    assert keeper.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) == []
    assert len(keeper.study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))) == 9
