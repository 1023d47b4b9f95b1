"""Files for workers that do not see the driver's: complete, of the right attempt, fetched once a machine."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_runner.config import TrialConfig
from lora_runner.protocol import Assignment
from sweeps.artifacts.checkpoint_store import CheckpointStore
from sweeps.artifacts.file_server import FileServer, fingerprint, write_run_token
from sweeps.artifacts.worker_files import (
    SharedFiles,
    ShippedFiles,
    StoreUnreachable,
    choose_worker_files,
    model_folder,
)
from tests.small_disk import fill


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "driver" / "run"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def call(run_folder: Path) -> Callable[..., Any]:
    """Calls of the file server, as a worker makes them."""
    file_server = FileServer(str(run_folder))
    return lambda method, *arguments: getattr(file_server, method)(*arguments)


def assignment(number: int, folder: Path, attempt: int = 1) -> Assignment:
    config = TrialConfig(learning_rate=1e-3, max_steps=4, per_device_train_batch_size=1)
    return Assignment(number=number, config=config, folder=str(folder), attempt=attempt)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def test_a_worker_that_sees_the_run_folder_writes_there_itself(run_folder: Path, call: Any) -> None:
    write_run_token(run_folder, "this-run")
    files = choose_worker_files(str(run_folder), "this-run", call)
    assert isinstance(files, SharedFiles)
    placed = assignment(3, run_folder / "trials" / "0003")
    assert files.fetch_checkpoints(placed) == placed


@pytest.mark.parametrize("found", [None, "another run"])
def test_a_folder_of_the_same_name_that_is_not_this_runs_is_not_taken_for_it(
    run_folder: Path, call: Any, found: str | None
) -> None:
    if found is not None:
        write_run_token(run_folder, found)
    assert isinstance(choose_worker_files(str(run_folder), "this-run", call), ShippedFiles)


def test_a_trial_moves_from_worker_to_worker_with_its_checkpoint(
    run_folder: Path, tmp_path: Path, call: Any
) -> None:
    home = run_folder / "trials" / "0003"
    first = ShippedFiles(call, tmp_path / "first")
    placed = first.fetch_checkpoints(assignment(3, home))
    assert Path(placed.folder) != home
    write(Path(placed.folder) / "checkpoint", state="step 1")
    first.deliver(placed, "checkpoint")
    write(Path(placed.folder) / "checkpoint", state="step 2")
    first.deliver(placed, "checkpoint")
    assert (home / "checkpoint" / "state").read_text() == "step 2"

    second = ShippedFiles(call, tmp_path / "second")
    again = second.fetch_checkpoints(assignment(3, home, attempt=2))
    assert (Path(again.folder) / "checkpoint" / "state").read_text() == "step 2"
    # The first was cut off, not dead, and goes on for a while.
    write(Path(placed.folder) / "checkpoint", state="step 3 of a ghost")
    first.deliver(placed, "checkpoint")
    assert (home / "checkpoint" / "state").read_text() == "step 2"
    write(Path(again.folder) / "adapter", weights="w")
    second.deliver(again, "adapter")
    assert (home / "adapter" / "weights").read_text() == "w"
    second.keep_only({3})
    assert Path(again.folder).exists()
    second.keep_only(set())
    assert not Path(again.folder).exists()


def test_the_checkpoint_before_the_last_travels_too(run_folder: Path, tmp_path: Path, call: Any) -> None:
    home = run_folder / "trials" / "0001"
    write(home / "checkpoint", state="torn")
    write(home / "checkpoint.previous", state="whole")
    placed = ShippedFiles(call, tmp_path / "scratch").fetch_checkpoints(assignment(1, home))
    assert (Path(placed.folder) / "checkpoint.previous" / "state").read_text() == "whole"


def test_a_worker_leaves_nothing_on_its_machine(
    run_folder: Path, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for _ in range(2):  # the first of them is killed
        files = choose_worker_files(str(run_folder), "this-run", call, worker=4)
        placed = files.fetch_checkpoints(assignment(3, run_folder / "trials" / "0003"))
        write(Path(placed.folder) / "checkpoint", state="step 1")
        assert len(list(tmp_path.glob("sweeps-*"))) == 1
    files.close()
    assert list(tmp_path.glob("sweeps-*")) == []


def test_a_disk_of_the_drivers_that_is_full_ends_no_worker(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_server = FileServer(str(small_disk))
    files = ShippedFiles(
        lambda method, *said: getattr(file_server, method)(*said), tmp_path / "scratch", patience_seconds=30
    )
    placed = files.fetch_checkpoints(assignment(3, small_disk / "trials" / "0003"))
    for name in ("checkpoint", "adapter"):
        write(Path(placed.folder) / name, state="s" * 100_000)
    filling = fill(small_disk)
    (note,) = files.deliver(placed, "checkpoint")
    assert "No space left" in note
    monkeypatch.setattr("time.sleep", lambda _: filling.unlink())
    (note,) = files.deliver(placed, "adapter")
    assert "waited for the driver's disk" in note
    assert (small_disk / "trials" / "0003" / "adapter" / "state").is_file()


def test_a_store_that_all_workers_reach_carries_checkpoints_and_the_driver_gets_adapters(
    run_folder: Path, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, store = run_folder / "trials" / "0003", CheckpointStore(f"file://{tmp_path}/stored", "s")
    write_run_token(run_folder, "this run")  # even where the run folder is seen
    first = choose_worker_files(str(run_folder), "this run", call, worker=1, store=store)
    placed = first.fetch_checkpoints(assignment(3, home))
    for step in ("1", "2"):
        write(Path(placed.folder) / "checkpoint", **{"state.json": f'{{"step": {step}}}', "tensors": step})
        assert first.deliver(placed, "checkpoint") == []
    assert not (home / "checkpoint").exists()
    second = choose_worker_files(str(run_folder), "this run", call, worker=2, store=store)
    again = second.fetch_checkpoints(assignment(3, home, attempt=2))
    assert (Path(again.folder) / "checkpoint" / "tensors").read_text() == "2"
    assert (Path(again.folder) / "checkpoint.previous" / "tensors").read_text() == "1"
    write(Path(again.folder) / "adapter", weights="w")
    assert second.deliver(again, "adapter") == []
    assert (home / "adapter" / "weights").read_text() == "w"

    def fail(*_: Any) -> None:
        raise OSError("the bucket is gone")

    monkeypatch.setattr(store, "save", fail)
    said = second.deliver(again, "checkpoint")
    assert said == ["trial 3: no checkpoint was stored (the bucket is gone)"]
    monkeypatch.setattr(store, "load", fail)
    with pytest.raises(StoreUnreachable, match="OSError: the bucket is gone"):
        second.fetch_checkpoints(assignment(3, home, attempt=3))


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/passwd", "..", ""])
def test_a_shipped_file_stays_in_its_folder(call: Any, name: str) -> None:
    with pytest.raises(ValueError, match="file name must be plain"):
        call("receive", 0, 1, "checkpoint", {name: b""})


def test_only_what_a_trial_leaves_behind_is_taken_in(call: Any) -> None:
    with pytest.raises(ValueError, match="only checkpoint, adapter"):
        call("receive", 0, 1, "../../best", {"x": b""})


def test_a_model_that_lies_in_the_same_place_is_not_fetched(tmp_path: Path) -> None:
    model = tmp_path / "model"
    write(model, **{"config.json": "{}"})
    assert model_folder(str(model), fingerprint(model), lambda *_: pytest.fail("fetched"), tmp_path) is None
    assert model_folder("some/hub-id", None, lambda *_: pytest.fail("fetched"), tmp_path) is None


def test_a_model_that_is_not_here_is_fetched_once_in_pieces(
    tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.artifacts.file_server.PIECE_BYTES", 5)
    monkeypatch.setattr("sweeps.artifacts.worker_files.PIECE_BYTES", 5)
    model, cache = tmp_path / "model", tmp_path / "cache"
    write(model, **{"config.json": "{}", "empty": "", "model.safetensors": "x" * 23})
    write(model / "sub", more="y" * 5)
    wanted, asked = fingerprint(model), []

    def counted(*arguments: Any) -> Any:
        asked.append(arguments)
        return call(*arguments)

    # A folder of the same name that holds other weights does not count as the model.
    elsewhere = tmp_path / "elsewhere"
    model.rename(elsewhere)
    write(model, **{"config.json": "{}", "model.safetensors": "z" * 23})

    def from_elsewhere(method: str, folder: str, *rest: Any) -> Any:
        return counted(method, str(elsewhere), *rest)

    folder = model_folder(str(model), wanted, from_elsewhere, cache)
    assert folder is not None
    assert fingerprint(Path(folder)) == wanted
    assert (Path(folder) / "model.safetensors").read_text() == "x" * 23
    assert (Path(folder) / "sub" / "more").read_text() == "y" * 5
    assert sum(method == "read" for method, *_ in asked) == 5 + 1 + 1
    asked.clear()
    assert model_folder(str(model), wanted, from_elsewhere, cache) == folder
    assert asked == []
    # One that was cut off while it was fetched is fetched again.
    (Path(folder) / "model.safetensors").write_text("x")
    assert model_folder(str(model), wanted, from_elsewhere, cache) == folder
    assert fingerprint(Path(folder)) == wanted


def test_a_model_that_takes_more_than_one_life_of_a_worker_arrives(
    tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.artifacts.file_server.PIECE_BYTES", 5)
    monkeypatch.setattr("sweeps.artifacts.worker_files.PIECE_BYTES", 5)
    model, cache = tmp_path / "model", tmp_path / "cache"
    write(model, **{"config.json": "{}", "model.safetensors": "abcdefghijklmnopqrstuvw"})
    wanted, kept = fingerprint(model), model.rename(tmp_path / "elsewhere")
    asked = list[tuple[str, int]]()

    def for_two_pieces(method: str, folder: str, *rest: Any) -> Any:
        if method == "read":
            asked.append(rest)
            if len(asked) in (3, 6):
                (half,) = cache.glob(f".*/{rest[0]}")
                with half.open("ab") as file:
                    file.write(b"?")  # the piece that was on its way
                raise ConnectionError("the worker was ended")
        return call(method, str(kept), *rest)

    for _ in range(2):
        with pytest.raises(ConnectionError):
            model_folder(str(model), wanted, for_two_pieces, cache)
    folder = model_folder(str(model), wanted, for_two_pieces, cache)
    assert folder is not None
    assert (Path(folder) / "model.safetensors").read_text() == "abcdefghijklmnopqrstuvw"
    assert (Path(folder) / "config.json").read_text() == "{}"
    assert [offset for name, offset in asked if name == "model.safetensors"] == [0, 5, 5, 10, 10, 15, 20]


def test_who_waits_for_another_workers_fetch_gives_signs_of_life(
    tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.artifacts.worker_files.RETRY_SECONDS", 0.05)
    model, cache = tmp_path / "model", tmp_path / "cache"
    write(model, **{"config.json": "{}"})
    wanted, kept = fingerprint(model), model.rename(tmp_path / "elsewhere")
    cache.mkdir()
    other = (cache / f"{wanted}.lock").open("w")
    fcntl.flock(other, fcntl.LOCK_EX)
    signs = list[int]()

    def alive() -> None:
        signs.append(len(signs))
        if len(signs) == 4:
            other.close()

    def of_the_driver(method: str, folder: str, *rest: Any) -> Any:
        return call(method, str(kept), *rest)

    assert model_folder(str(model), wanted, of_the_driver, cache, alive=alive) is not None
    assert len(signs) == 4
