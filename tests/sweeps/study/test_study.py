"""Opening a sweep's study: a new one, the same one again, and another sweep's, which is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.errors import StudyMismatch
from sweeps.storage.open_storage import open_storage
from sweeps.study.study import open_study, peek

IDENTITY = {
    "metric": "eval_loss",
    "model": {"name": "base", "revision": None},
    "training": {"max_steps": 30, "seed": 0},
    "report_at": [20, 100],
}


@pytest.fixture
def url(new_database: Callable[[str], str]) -> str:
    return new_database("study")


def test_a_new_study_minimizes_and_is_recognized_again(url: str) -> None:
    study, is_new = open_study(open_storage(url), "mine", IDENTITY)
    assert is_new
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    again, is_new = open_study(open_storage(url), "mine", IDENTITY)
    assert not is_new
    assert again.user_attrs["identity"] == IDENTITY


def test_a_mismatch_lists_every_field_that_differs_and_no_other(url: str) -> None:
    open_study(open_storage(url), "mine", IDENTITY)
    other = {
        "metric": "eval_loss",
        "model": {"name": "another", "revision": None},
        "training": {"max_steps": 60, "seed": 0, "weight_decay": 0.1},
        "report_at": [50, 100],
    }
    with pytest.raises(StudyMismatch) as caught:
        open_study(open_storage(url), "mine", other)
    assert str(caught.value).splitlines()[1:] == [
        "  model.name: the study has 'base', this sweep 'another'",
        "  report_at: the study has [20, 100], this sweep [50, 100]",
        "  training.max_steps: the study has 30, this sweep 60",
        "  training.weight_decay: the study has None, this sweep 0.1",
    ]
    assert caught.value.exit_code == 2
    with pytest.raises(StudyMismatch):
        peek(url, "mine", other)


def test_a_study_that_no_sweep_made_is_left_alone(url: str) -> None:
    study = optuna.create_study(storage=url, study_name="mine", direction="minimize")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    for attempt in (
        lambda: open_study(open_storage(url), "mine", IDENTITY),
        lambda: peek(url, "mine", IDENTITY),
    ):
        with pytest.raises(StudyMismatch, match="already holds a study named 'mine' that no sweep made"):
            attempt()
    assert study.user_attrs == {}


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "minimize"]])
def test_a_study_with_another_direction_is_refused(url: str, directions: list[Any]) -> None:
    study = optuna.create_study(storage=url, study_name="mine", directions=directions)
    study.set_user_attr("identity", IDENTITY)
    with pytest.raises(
        StudyMismatch, match=f"direction: the study has '{', '.join(directions)}', a sweep 'minimize'"
    ):
        open_study(open_storage(url), "mine", IDENTITY)


def test_peek_finds_a_study_and_creates_nothing(tmp_path: Path, url: str) -> None:
    assert peek(url, "mine", IDENTITY) is None
    assert peek(f"sqlite:///{tmp_path / 'none.db'}", "mine") is None
    assert peek(f"sqlite:///{tmp_path / 'folder' / 'none.db'}", "mine") is None
    (tmp_path / "empty.db").touch()
    assert peek(f"sqlite:///{tmp_path / 'empty.db'}", "mine") is None
    assert (tmp_path / "empty.db").stat().st_size == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.db", "study.db"]
    open_study(open_storage(url), "mine", IDENTITY)
    found = peek(url, "mine")
    assert found is not None
    assert found.study_name == "mine"
