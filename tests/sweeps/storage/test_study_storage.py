"""What each kind of storage has to do beyond Optuna's cases, and that a sweep is the same on each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from sweeps.storage.cached_storage import CachedStorage
from sweeps.storage.open_storage import holds_studies, open_storage
from sweeps.storage.optuna_private import storage_of, study_id_of, trial_id_of
from sweeps.storage.study_storage import StudyStorage
from sweeps.study.lease import DriverProcess
from sweeps.study.study import cached_storage_of, find_study, open_study, peek, set_user_attrs, study_key_of

TIMES = ("_datetime_start", "datetime_complete")
NewUrl = Callable[..., str]
Plainly = Callable[[str, str], list[Any]]

Opened = Callable[..., StudyStorage]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """`open_storage`, whose storages are closed in the end."""
    storages: list[StudyStorage] = []

    def opened(url: str, **options: Any) -> StudyStorage:
        storages.append(open_storage(url, **options))
        return storages[-1]

    yield opened
    for storage in storages:
        storage.close()


def seen(trials: list[Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in vars(t).items() if name not in TIMES} for t in trials]


def without_ids(trials: list[Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in each.items() if name != "_trial_id"} for each in seen(trials)]


def writes(study: optuna.Study) -> list[Callable[[], object]]:
    """One write of each kind, in a possible order."""
    storage = cached_storage_of(study)
    trial = study.ask({"rate": FloatDistribution(1e-5, 1e-2, log=True)})
    space = {"rate": FloatDistribution(1e-5, 1e-2, log=True), "decay": FloatDistribution(0, 1)}
    return [
        lambda: study.set_user_attr("note", ["text", 1, None]),
        lambda: storage.set_study_system_attr(study_id_of(study), "system", {"key": 1}),
        lambda: study.enqueue_trial({"rate": 1e-3}),
        lambda: study.ask(space),
        lambda: set_user_attrs(study, trial, first=1, second={"a": [1.5, None]}),
        lambda: set_user_attrs(study, trial, first=2),
        lambda: trial.set_user_attr("third", "ü"),
        lambda: trial.set_constraint("trainable", -1.0),
        lambda: storage.add_intermediate_values(
            [
                (trial_id_of(trial), 20, 2.5),
                (trial_id_of(trial), 40, math.inf),
                (trial_id_of(trial), 60, -math.inf),
            ]
        ),
        lambda: trial.report(1.5, 80),
        lambda: storage._storage.exchange_study_attr(study_id_of(study), "lease", None, "mine"),
        lambda: study.tell(trial.number, 1.25),
        lambda: study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED, intermediate_values={1: 2.0}, user_attrs={"x": (1, 2)}
            )
        ),
    ]


def test_memory_and_storage_agree_after_every_write(
    new_url: NewUrl, opened: Opened, plainly: Plainly
) -> None:
    storage = opened(url := new_url())
    study, _ = open_study(CachedStorage(storage), "s", {"metric": "eval_loss"})
    with storage.transaction():
        following = writes(study)
    for write in following:
        with storage.transaction():
            write()
        assert seen(study.get_trials()) == seen(plainly(url, "s"))
    mine, theirs = study.user_attrs, peek(url, "s")
    assert theirs is not None
    assert mine == theirs.user_attrs
    expected = {"identity": {"metric": "eval_loss"}, "note": ["text", 1, None], "lease": "mine"}
    assert mine == expected | {"study_key": study_key_of(study)}
    ids = study_id_of(study), study_id_of(theirs)
    assert storage.get_study_system_attrs(ids[0]) == storage_of(theirs).get_study_system_attrs(ids[1])
    assert study.best_trial.value == theirs.best_trial.value == 1.25
    first = theirs.get_trials()[0]
    assert first.intermediate_values == {20: 2.5, 40: math.inf, 60: -math.inf, 80: 1.5}
    assert first.user_attrs == {"first": 2, "second": {"a": [1.5, None]}, "third": "ü"}
    assert [t.state.name for t in theirs.get_trials()] == ["COMPLETE", "RUNNING", "PRUNED"]


def test_an_error_at_any_point_rolls_everything_back(
    new_url: NewUrl, opened: Opened, plainly: Plainly
) -> None:
    storage = opened(url := new_url())
    study, _ = open_study(CachedStorage(storage), "s", {})
    with storage.transaction():
        study.ask({"rate": FloatDistribution(1e-5, 1e-2, log=True)})
    before, attributes = seen(plainly(url, "s")), study.user_attrs
    for fails_after in range(1, 14):

        def fails(fails_after: int = fails_after) -> None:
            study = find_study(CachedStorage(storage), "s")
            assert study is not None
            with storage.transaction():
                for write in writes(study)[:fails_after]:
                    write()
                if fails_after == 13:
                    study.tell(0, 1.0)
                    study.tell(0, 2.0)  # has finished already
                raise ValueError("an error of our own")

        with pytest.raises(ValueError, match=r"an error of our own|Cannot tell a COMPLETE trial"):
            fails()
        assert seen(plainly(url, "s")) == before
        again = find_study(CachedStorage(storage), "s")
        assert again is not None
        assert again.user_attrs == attributes
        assert seen(again.get_trials()) == before
    again = find_study(CachedStorage(storage), "s")
    assert again is not None
    with storage.transaction():
        for write in writes(again):
            write()
    assert seen(again.get_trials()) == seen(plainly(url, "s"))
    assert [t.number for t in again.get_trials()] == [0, 1, 2, 3]


def test_nothing_of_a_transaction_is_seen_before_its_end(
    new_url: NewUrl, opened: Opened, plainly: Plainly
) -> None:
    storage = opened(url := new_url())
    study, _ = open_study(CachedStorage(storage), "s", {})
    reader = peek(url, "s")
    assert reader is not None
    with storage.transaction():
        for write in writes(study):
            write()
        assert reader.get_trials() == []
        assert plainly(url, "s") == []
        assert len(study.get_trials()) == 3
    assert seen(reader.get_trials()) == seen(study.get_trials())


def test_only_one_of_two_exchanges_of_an_attribute_succeeds(new_url: NewUrl, opened: Opened) -> None:
    one, other = opened(url := new_url()), opened(url)
    study, _ = open_study(CachedStorage(one), "s", {})
    key = (study_id_of(study), "lease")
    assert find_study(other, "s") is not None
    assert one.exchange_study_attr(*key, None, "one")
    assert not other.exchange_study_attr(*key, None, "other")
    assert not other.exchange_study_attr(*key, "none", "other")
    assert other.exchange_study_attr(*key, "one", "other")
    with one.transaction():
        assert not one.exchange_study_attr(*key, "one", "one again")
        assert one.exchange_study_attr(*key, "other", "one again")
    assert other.get_study_user_attrs(key[0])["lease"] == "one again"
    with other.transaction():
        assert other.exchange_study_attr(*key, "one again", "other again")
    assert one.get_study_user_attrs(key[0])["lease"] == "other again"


def test_trials_of_two_studies_in_one_storage_are_numbered_separately(
    new_url: NewUrl, opened: Opened, plainly: Plainly
) -> None:
    one, other = opened(url := new_url()), opened(url)
    first, _ = open_study(CachedStorage(one), "first", {})
    second, _ = open_study(CachedStorage(other), "second", {})
    for turn in range(3):
        for storage, study in ((one, first), (other, second)):
            with storage.transaction():
                trial = study.ask()
                set_user_attrs(study, trial, turn=turn)
                study.tell(trial, float(turn))
    for name in ("first", "second"):
        trials = plainly(url, name)
        assert [(t.number, t.value, t.user_attrs) for t in trials] == [
            (turn, float(turn), {"turn": turn}) for turn in range(3)
        ]


def test_an_empty_storage_holds_no_studies_and_stays_empty(
    new_url: NewUrl, opened: Opened, kind: str
) -> None:
    url = new_url()
    assert peek(url, "s") is None
    if kind != "sqlite":  # the fixture has created its tables
        assert not holds_studies(url)
    storage = opened(url)
    assert find_study(storage, "s") is None
    assert peek(url, "s") is None


def test_a_reader_writes_nothing(new_url: NewUrl, opened: Opened) -> None:
    storage = opened(url := new_url())
    open_study(CachedStorage(storage), "s", {})
    reader = opened(url, for_reading=True)
    if url.startswith("journal:"):
        with pytest.raises(TypeError, match="was opened for reading"), reader.transaction():
            pass
        with pytest.raises(TypeError, match="was opened for reading"):
            reader.set_study_user_attr(0, "note", 1)


def test_a_sweep_is_the_same_on_every_storage(
    new_url: NewUrl, make_keeper: Callable[..., Any], pack: Any, plainly: Plainly
) -> None:
    options = {"trials": 8, "startup_trials": 2, "owner": DriverProcess.current("a run")}
    pack(expected := make_keeper(**options), seats=2).run()
    simulated = pack(make_keeper(url=(url := new_url("other")), at="other", **options), seats=2)
    simulated.run()
    assert without_ids(plainly(url, "t")) == without_ids(expected.study.get_trials())


def test_a_new_keeper_continues_a_study_after_the_first_died(
    new_url: NewUrl, make_keeper: Callable[..., Any], pack: Any, plainly: Plainly
) -> None:
    options = {"trials": 6, "startup_trials": 2, "url": new_url()}
    simulated = pack(make_keeper(**options), seats=2)
    simulated.ask()
    for _ in range(7):
        simulated.turn()
    pack(make_keeper(**options), seats=2).run()
    trials = plainly(options["url"], "t")
    assert [t.state.is_finished() for t in trials] == [True] * 6
    assert all(t.user_attrs["stop_reason"] for t in trials)
    assert make_keeper(**options).ask(0, [0]).start == ()
