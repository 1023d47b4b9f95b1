"""A keeper can work on the filled studies of the scale benchmark, on every kind of storage."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.empty_trials.filled_study import PACK
from benchmarks.empty_trials.fleet import most_at_once
from benchmarks.empty_trials.keeper_timings import measure
from benchmarks.empty_trials.losses import loss_of
from benchmarks.scale import sizes
from sweeps.storage.open_storage import open_storage
from sweeps.storage.optuna_private import study_id_of


@pytest.mark.parametrize(
    "url", ["sqlite:///{folder}/study.db", "journal:{folder}/study.log"], ids=["sqlite", "journal"]
)
def test_a_filled_study_is_worked_on_by_a_keeper(tmp_path: Path, url: str) -> None:
    (tmp_path / "run").mkdir()
    url = url.format(folder=tmp_path)
    point = measure("it", url, tmp_path / "run", sampler="random", finished=60, seats=PACK + 8)
    assert all(math.isfinite(value) and value > 0 for value in vars(point).values() if type(value) is float)
    storage = open_storage(url, for_reading=True)
    trials = storage.get_all_trials(study_id_of(storage.get_all_studies()[0]))
    assert [trial.number for trial in trials] == list(range(len(trials)))
    states = [trial.state.name for trial in trials]
    # The pack of the first worker has ended, that of the second still sits there.
    assert states.count("COMPLETE") + states.count("PRUNED") == 60 + PACK
    assert states.count("RUNNING") >= 8
    copied = [trial for trial in trials if trial.state.name == "COMPLETE"][-5:]
    assert all(t.value == pytest.approx(loss_of(t.params["learning_rate"], 100)) for t in copied)


def test_one_size_grows_while_the_other_stays() -> None:
    assert sizes((1, 2, 3), (7, 8, 9)) == [(1, 8), (2, 8), (3, 8), (2, 7), (2, 9)]


def test_trials_at_once_are_counted_at_the_fullest_moment() -> None:
    class Trial:
        def __init__(self, began: int, ended: int) -> None:
            self.datetime_start, self.datetime_complete = began, ended

    assert most_at_once([Trial(0, 4), Trial(1, 2), Trial(2, 5), Trial(3, 6)]) == 3
