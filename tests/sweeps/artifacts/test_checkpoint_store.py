"""Checkpoints at a URL: of the two slots one is always complete."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from sweeps.artifacts.checkpoint_store import CheckpointCleaner, CheckpointStore
from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.errors import StorageUnreachable
from sweeps.study.study import study_key_of


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder, and fsspec's in-memory object store."""
    yield f"file://{tmp_path}/stored" if request.param == "file" else f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def store(url: str) -> CheckpointStore:
    return CheckpointStore(url, "sweep")


def checkpoint(folder: Path, step: int) -> Path:
    """As a seat writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "seat.safetensors").write_bytes(b"tensors of step %d" % step)
    (folder / "state.json").write_text(json.dumps({"step": step, "micro_step": 2 * step}))
    return folder


def loaded(store: CheckpointStore, number: int, folder: Path) -> list[int | None]:
    """Steps of the checkpoint and of the one before it."""
    store.load(number, folder)
    steps: list[int | None] = []
    for name in ("checkpoint", "checkpoint.previous"):
        file = folder / name / "state.json"
        steps.append(json.loads(file.read_text())["step"] if file.is_file() else None)
        if steps[-1] is not None:
            assert (folder / name / "seat.safetensors").read_bytes() == b"tensors of step %d" % steps[-1]
    return steps


def test_the_newest_and_the_one_before_it_are_kept(store: CheckpointStore, tmp_path: Path) -> None:
    store.check()
    assert loaded(store, 3, tmp_path / "w") == [None, None]
    for step, expected in ((1, [1, None]), (2, [2, 1]), (5, [5, 2]), (9, [9, 5])):
        store.save(3, checkpoint(tmp_path / "c", step))
        assert loaded(store, 3, tmp_path / "w") == expected
    assert loaded(store, 4, tmp_path / "w") == [None, None]
    store.remove(3)
    store.remove(3)
    assert loaded(store, 3, tmp_path / "w") == [None, None]


def test_a_save_that_is_cut_off_anywhere_leaves_the_newest_whole(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        store.save(0, checkpoint(tmp_path / "c", step))
    files, put = store._files, store._files.put_file
    for allowed in (0, 1):
        left = [allowed]

        def cut_off(*arguments: Any, left: list[int] = left, **named: Any) -> Any:
            if not left[0]:
                raise ConnectionError("gone")
            left[0] -= 1
            return put(*arguments, **named)

        monkeypatch.setattr(files, "put_file", cut_off)
        with pytest.raises(ConnectionError):
            store.save(0, checkpoint(tmp_path / "c", 3))
        assert loaded(store, 0, tmp_path / "w") == [2, None]
    monkeypatch.setattr(files, "put_file", put)
    store.save(0, checkpoint(tmp_path / "c", 3))
    assert loaded(store, 0, tmp_path / "w") == [3, 2]


def test_sweeps_below_one_url_do_not_meet(store: CheckpointStore, url: str, tmp_path: Path) -> None:
    store.save(0, checkpoint(tmp_path / "c", 1))
    assert loaded(CheckpointStore(url, "another"), 0, tmp_path / "w") == [None, None]


def test_a_new_study_does_not_go_on_from_what_one_of_its_name_left(
    url: str, tmp_path: Path, make_keeper: Any, new_database: Any
) -> None:
    """Study and run folder were removed to fix the data; the configs are the same."""
    stored = {"checkpoints": url}
    keys = []
    for life, step in (("a", 7), ("b", None), ("a", 7)):
        keeper = make_keeper(at=life, reliability=ReliabilitySection(**stored))
        keys.append(keeper.rejoin(0).study_key)
        store = keeper.study_spec.checkpoint_store().of_study(keys[-1])
        if len(keys) == 1:
            store.save(0, checkpoint(tmp_path / "c", 7))
        assert loaded(store, 0, tmp_path / "w") == [step, None]
    assert keys[0] == keys[2] != keys[1]


def test_a_study_from_before_there_were_keys_finds_its_checkpoints(
    url: str, tmp_path: Path, make_keeper: Any
) -> None:
    keeper = make_keeper(reliability=ReliabilitySection(checkpoints=url))
    whole = keeper.study_spec.checkpoint_store()
    whole.save(0, checkpoint(tmp_path / "c", 7))
    keeper.close()
    with keeper._storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM study_user_attributes WHERE key = 'study_key'")
    key = make_keeper(reliability=ReliabilitySection(checkpoints=url)).rejoin(0).study_key
    assert loaded(whole.of_study(key), 0, tmp_path / "w") == [7, None]


def test_opening_a_study_drops_what_is_left_of_ended_trials_and_asks_for_no_others(
    url: str, tmp_path: Path, make_keeper: Any, pack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"trials": 6, "sampler": "random", "pruner": "none", "report_at": (100,)}
    keeper = make_keeper(reliability=ReliabilitySection(checkpoints=url), **options)
    pack(keeper).run()
    keeper.close()
    store = keeper.study_spec.checkpoint_store().of_study(study_key_of(keeper.study))
    for number in (2, 17):  # one that ended when nobody could reach the store, one that is still to come
        store.save(number, checkpoint(tmp_path / "c", 1))
    dropped = []
    drop = CheckpointStore.remove
    monkeypatch.setattr(
        CheckpointStore, "remove", lambda self, number: (dropped.append(number), drop(self, number))
    )
    again = make_keeper(reliability=ReliabilitySection(checkpoints=url), **options)
    again.close()
    assert dropped == [2]
    assert store.numbers() == {17}


def test_a_store_that_hangs_holds_no_keeper_up(
    url: str, make_keeper: Any, pack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, released = threading.Event(), threading.Event()

    def hang(self: CheckpointStore) -> set[int]:
        hanging.set()
        released.wait(60)
        return set()

    monkeypatch.setattr(CheckpointStore, "numbers", hang)
    monkeypatch.setattr(CheckpointCleaner.finish, "__defaults__", (0.1,))
    options = {"trials": 6, "sampler": "random", "pruner": "none", "report_at": (100,)}
    began = time.monotonic()
    for _ in range(2):
        keeper = make_keeper(reliability=ReliabilitySection(checkpoints=url), **options)
        pack(keeper).run()
        keeper.close()
    assert hanging.is_set()
    assert keeper.status().finished == 6
    assert time.monotonic() - began < 30
    released.set()


def test_a_keeper_that_closes_waits_for_its_last_trials_checkpoints_to_go(
    url: str, tmp_path: Path, make_keeper: Any, pack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"trials": 3, "sampler": "random", "pruner": "none", "report_at": (100,)}
    keeper = make_keeper(reliability=ReliabilitySection(checkpoints=url), **options)
    store = keeper.study_spec.checkpoint_store().of_study(study_key_of(keeper.study))
    for number in range(3):
        store.save(number, checkpoint(tmp_path / "c", 1))
    drop = CheckpointStore.remove
    monkeypatch.setattr(CheckpointStore, "remove", lambda self, number: (time.sleep(0.1), drop(self, number)))
    pack(keeper).run()
    keeper.close()
    assert store.numbers() == set()


def test_a_password_of_fsspecs_own_settings_does_not_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "memory", {"password": "hush"})
    store = CheckpointStore(f"memory://{tmp_path.name}", "sweep").of_study("key")
    store.save(0, checkpoint(tmp_path / "c", 1))
    sent = pickle.dumps(store)
    assert b"hush" not in sent
    assert loaded(pickle.loads(sent), 0, tmp_path / "w") == [1, None]


def test_a_place_that_cannot_be_used_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(StorageUnreachable, match="nosuch"):
        CheckpointStore("nosuch://bucket", "sweep")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnreachable, match="cannot be kept in"):
        CheckpointStore(f"file://{tmp_path}/file/below", "sweep").check()
