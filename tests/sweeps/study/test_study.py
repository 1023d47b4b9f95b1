"""The study in its storage: whose it is, and what is said when it cannot be reached."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.config.url_passwords import masked
from sweeps.errors import StorageUnreachable, StudyMismatch
from sweeps.storage.open_storage import _reason, check_reachable, open_storage
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


def test_a_new_study_minimizes_and_is_known_again(url: str) -> None:
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


def test_a_study_that_someone_else_made_is_left_alone(url: str) -> None:
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


# --- storages that cannot be reached --------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("function", [open_storage, check_reachable, lambda url: peek(url, "mine")])
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg://me:se%40cret@127.0.0.1:{port}/db", r"[Cc]onnection refused"),
        ("mysql+pymysql://me:se%40cret@127.0.0.1:{port}/db", "."),
        ("oracle+cx_oracle://me:se%40cret@127.0.0.1:{port}/db", "."),
        ("postgressql://me:se%40cret@127.0.0.1:{port}/db", "postgressql"),
        ("se@cret", "a database URL reads like postgresql"),
        ("se@cret://", "."),
        ("postgresql://me:se%40cret@127.0.0.1:port/db", "a database URL reads like postgresql"),
        ("postgresql+psycopg://127.0.0.1:{port}/db?user=me&password=se%40cret", r"[Cc]onnection refused"),
    ],
    ids=[
        "closed port",
        "no driver",
        "other driver",
        "wrong scheme",
        "no url",
        "half a url",
        "bad port",
        "in query",
    ],
)
def test_an_unreachable_storage_says_why_without_its_password(
    function: Callable[[str], object], url: str, says: str
) -> None:
    with pytest.raises(StorageUnreachable, match=says) as caught:
        function(url.format(port=closed_port()))
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert "se@cret" not in text.replace("se@cret://...", "")
    assert "se%40cret" not in text
    if "@127" in url and "{port}" in url:
        assert "me:***@127.0.0.1" in text


def test_a_sqlite_file_whose_folder_is_missing_or_a_file_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for place in ("file/study.db", "missing/study.db", "missing/deeper/study.db"):
        with pytest.raises(StorageUnreachable, match="there is no folder"):
            check_reachable(f"sqlite:///{tmp_path / place}")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_run_folder_itself_need_not_exist_yet(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    check_reachable(f"sqlite:///{run / 'study.db'}", run)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_unreachable_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    file.write_text("my diary " * 200)
    for function in (open_storage, check_reachable, lambda url: peek(url, "mine")):
        with pytest.raises(StorageUnreachable, match="not a database"):
            function(f"sqlite:///{file}")
    assert file.read_text() == "my diary " * 200


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_unreachable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageUnreachable, match="cannot be written"):
        check_reachable(f"sqlite:///{tmp_path / 'study.db'}")
    tmp_path.chmod(0o700)


def test_a_driver_that_repeats_the_password_is_not_repeated() -> None:
    url = "postgresql://me:se%40cret@host/db?sslpassword=hush"
    said = _reason(ValueError("cannot use se@cret, se%40cret or hush\nmore"), url)
    assert said == "cannot use ***, *** or ***"


def test_masked_hides_the_password_and_whatever_is_no_url() -> None:
    assert masked("postgresql://me:hush@host/db") == "postgresql://me:***@host/db"
    assert masked("hush") == "(no database URL)"
    assert "hush" not in masked("hu://sh://hush")


# --- transactions ---------------------------------------------------------------------------------


def test_a_transaction_is_seen_whole_by_others_or_not_at_all(url: str) -> None:
    storage = open_storage(url)
    study, _ = open_study(storage, "mine", IDENTITY)
    reader = optuna.load_study(study_name="mine", storage=url)
    with storage.transaction():
        trial = study.ask()
        trial.set_user_attr("first", 1)
        assert reader.get_trials() == []
        trial.set_user_attr("second", 2)
    assert reader.get_trials()[0].user_attrs == {"first": 1, "second": 2}

    def fails() -> None:
        with storage.transaction():
            trial.set_user_attr("third", 3)
            study.tell(trial, 1.0)
            raise RuntimeError("the process dies")

    with pytest.raises(RuntimeError, match="dies"):
        fails()
    (seen,) = optuna.load_study(study_name="mine", storage=url).get_trials()
    assert seen.state == optuna.trial.TrialState.RUNNING
    assert "third" not in seen.user_attrs
    open_study(storage, "afterwards", IDENTITY)
    assert peek(url, "afterwards") is not None


# --- PostgreSQL -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_on_postgresql_goes_on_after_its_keeper_died(
    postgresql: Any, make_keeper: Any, pack: Any, stored: Any
) -> None:
    postgres_url = postgresql.new_database()
    check_reachable(postgres_url)
    assert peek(postgres_url, "t") is None
    with pytest.raises(StorageUnreachable, match="does not exist") as caught:
        check_reachable(postgresql.url_of("elsewhere"))
    assert "hush" not in str(caught.value)

    simulated = pack(make_keeper(url=postgres_url, trials=6, startup_trials=2), seats=2)
    simulated.ask()
    for _ in range(7):
        simulated.turn()
    keeper = make_keeper(url=postgres_url, trials=6, startup_trials=2)
    pack(keeper, seats=2).run()
    trials = stored(keeper)
    assert [t.state.is_finished() for t in trials] == [True] * 6
    assert {t.state.name for t in trials} == {"COMPLETE", "PRUNED"}
    assert all(t.user_attrs["stop_reason"] for t in trials)
    again = make_keeper(url=postgres_url, trials=6, startup_trials=2)
    assert again.ask(0, [0]).start == ()
    study = peek(postgres_url, "t", again.study_spec.identity)
    assert study is not None
    assert study.best_trial.state.name == "COMPLETE"
