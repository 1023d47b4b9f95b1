"""Sweeps that an earlier version left go on: from both storages, from checkpoints, and a confirmation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.sweep import Sweep
from tests.kept.restoring import EXPECTED, restore


def sweeps(*arguments: object) -> str:
    """What the command prints; its exit code must be 0."""
    command = [sys.executable, "-m", "sweeps", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stored(run_folder: Path, suffix: str = "") -> list[dict[str, Any]]:
    """The trials of the study, read by Optuna alone."""
    journal, database = run_folder / "study.log", run_folder / "study.db"
    storage: Any
    if journal.is_file():
        backend = optuna.storages.journal.JournalFileBackend(str(journal))
        storage = optuna.storages.JournalStorage(backend)
    else:
        storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
    study = optuna.load_study(study_name=run_folder.name + suffix, storage=storage)
    found = study.get_trials()
    if not journal.is_file():
        storage.engine.dispose()
    attributes = ("attempt", "outcome", "stop_reason", "arm", "seed")
    return [
        {"number": trial.number, "state": trial.state.name, "value": trial.value}
        | {"reports": {str(percent): loss for percent, loss in trial.intermediate_values.items()}}
        | {name: trial.user_attrs[name] for name in attributes if name in trial.user_attrs}
        for trial in found
    ]


def assert_equal(found: Any, expected: Any) -> None:
    """Equal, numbers within what another CPU or version of torch may add up differently."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3)
    else:
        assert found == expected


@pytest.mark.parametrize("kind", ["journal", "sqlite", "confirm"])
def test_status_reads_it(kind: str, tmp_path: Path) -> None:
    status = json.loads(sweeps("status", restore(kind, tmp_path), "--json"))
    expected = EXPECTED[kind]["status"]
    assert_equal(only(status, expected), expected)
    assert status["states"].keys() == expected["states"].keys()


def only(found: Any, expected: Any) -> Any:
    """What was said then; what is said since, such as a trial's values, is left out."""
    if isinstance(expected, dict):
        return {key: only(found[key], expected[key]) for key in expected}
    if isinstance(expected, list):
        return [only(*pair) for pair in zip(found, expected, strict=True)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_unfinished_trials_go_on_to_the_losses_they_would_have_reached(kind: str, tmp_path: Path) -> None:
    run_folder = restore(kind, tmp_path)
    sweeps("run", run_folder)
    assert_equal(stored(run_folder), EXPECTED[kind]["after"])
    assert words(run_folder) == EXPECTED[kind]["verdict_words"]


@pytest.mark.slow
def test_a_confirmation_goes_on(tmp_path: Path) -> None:
    run_folder = restore("confirm", tmp_path)
    sweeps("confirm", run_folder, "--no-rows", "--trials", "8")
    assert_equal(stored(run_folder), EXPECTED["confirm"]["after"])
    assert_equal(stored(run_folder, ".confirm"), EXPECTED["confirm"]["confirm"])
    assert words(run_folder) == EXPECTED["confirm"]["verdict_words"]


def words(run_folder: Path) -> dict[str, list[str]]:
    rows = json.loads((run_folder / "verdict.json").read_text(encoding="utf-8"))["rows"]
    return {row["id"]: [row["verdict"], row["position"]] for row in rows}


@pytest.mark.slow
def test_a_run_of_a_confirmation_is_replayed_from_a_record_without_digests(tmp_path: Path) -> None:
    run_folder = restore("confirm", tmp_path)
    answer = Sweep.load(run_folder).replay(2, of_confirmation=True)
    recorded = stored(run_folder, ".confirm")[2]["reports"]
    losses = {v.percent: (v.recorded, v.found) for v in answer.values if v.name == "eval_loss"}
    assert {str(percent): pair[0] for percent, pair in losses.items()} == recorded
    for then, now in losses.values():
        assert_equal(now, then)
    assert answer.lacking == ("adapter_sha256",)


@pytest.mark.slow
def test_an_adapter_that_was_kept_stands_in_for_its_digest(tmp_path: Path) -> None:
    answer = Sweep.load(restore("journal", tmp_path)).replay(0)
    *_, last = answer.values
    assert (last.percent, last.name, last.source) == (
        100,
        "adapter file",
        "adapter/adapter_model.safetensors",
    )
    # On another processor or version both differ.
    assert last.is_equal == all(value.is_equal for value in answer.values)
