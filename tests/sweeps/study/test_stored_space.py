"""A study whose space is the former default goes on with it; a user's own edit of the space is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from search_spaces import SearchSpace, load_guidelines
from sweeps.artifacts.run_folder import check_run_folder, write_run_folder
from sweeps.config import RESOLVED_NAME, SweepConfig, load_sweep, space_of, storage_url
from sweeps.errors import StudyMismatch
from sweeps.storage.cached_storage import CachedStorage
from sweeps.storage.open_storage import open_storage
from sweeps.study.edges.stored_space import NEWER_RANGES, space_of_study
from sweeps.study.edges.widening import Widening, record_widening
from sweeps.study.study import open_study, peek

SWEEP = """\
name: old
model: {{name: /nowhere, size: 8e9}}
data: {{train: /nowhere.jsonl}}
training: {{max_steps: 100}}
output: {output}
{more}
"""
Load = Callable[..., SweepConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def make(more: str = "") -> SweepConfig:
        file = tmp_path / "old.yaml"
        file.write_text(SWEEP.format(output=tmp_path / "runs", more=more))
        return load_sweep(file, check_files=False)

    return make


def started_with(config: SweepConfig, **rate: Any) -> SearchSpace:
    """A study of the program before its range of the learning rate became `space_of(config)`'s."""
    now = space_of(config)
    dimensions = [replace(d, **rate) if d.name == "learning_rate" else d for d in now.dimensions]
    former = replace(now, dimensions=tuple(dimensions))
    write_run_folder(config)
    storage = CachedStorage(open_storage(storage_url(config.storage, config.run_folder)))
    study, _ = open_study(storage, config.name, {"space": former.fingerprint()})
    study.set_user_attr("space", former.to_dict())
    study.set_user_attr("guidelines", load_guidelines(*config.guidelines).to_list())
    return former


def study_of(config: SweepConfig) -> optuna.Study:
    storage = CachedStorage(open_storage(storage_url(config.storage, config.run_folder)))
    return open_study(storage, config.name, peek_identity(config))[0]


def peek_identity(config: SweepConfig) -> dict[str, Any]:
    study = peek(storage_url(config.storage, config.run_folder), config.name)
    assert study is not None
    return dict(study.user_attrs["identity"])


def test_a_study_with_the_former_range_goes_on_with_it(load: Load) -> None:
    config = load()
    former = started_with(config, high=1e-3)
    now = space_of(config)
    found = space_of_study(config, now)
    assert found.fingerprint() == former.fingerprint()
    assert found["learning_rate"].high == 1e-3
    text = found.context[NEWER_RANGES]
    assert text.startswith("searched as when this study was started; this version of the program has other")
    assert "(learning_rate 4e-5 to 2e-3 instead of 4e-5 to 1e-3)" in text
    url = storage_url(config.storage, config.run_folder)
    assert peek(url, config.name, {"space": found.fingerprint()}) is not None
    # What the program would do without it.
    with pytest.raises(StudyMismatch, match="space: the study has"):
        peek(url, config.name, {"space": now.fingerprint()})


@pytest.mark.parametrize(
    "edit",
    [
        "space: {learning_rate: {high: 5.0e-4}}",
        "space: {weight_decay: {low: 0.0, high: 0.1}}",
        "search: {include: [lora_r]}",
        "search: {widen: {learning_rate: 2}}",
        "scenario: short",
    ],
)
def test_a_users_own_edit_is_refused_as_before(load: Load, edit: str) -> None:
    config = load()
    started_with(config, high=1e-3)
    edited = load(edit)
    now = space_of(edited)
    assert space_of_study(edited, now) is now
    with pytest.raises(StudyMismatch):
        peek(storage_url(config.storage, config.run_folder), config.name, {"space": now.fingerprint()})


def test_a_change_of_anything_else_goes_on_too(load: Load) -> None:
    former = started_with(load(), high=1e-3)
    edited = load("trials: 64\nsearch: {sampler: random}")
    assert space_of_study(edited, space_of(edited)).fingerprint() == former.fingerprint()


def test_a_run_folder_of_a_version_with_other_keys_goes_on_too(load: Load) -> None:
    config = load()
    former = started_with(config, high=1e-3)
    file = config.run_folder / RESOLVED_NAME
    text = file.read_text()
    file.write_text(text.replace("  frozen_gib: 20.0\n", "  keep_frozen: 8\n"))
    assert file.read_text() != text
    check_run_folder(config)
    assert space_of_study(config, space_of(config)).fingerprint() == former.fingerprint()


ROWS = "rows: {{own: {{topic: boundary, parameter: learning_rate, low: {low}, high: 3.0e-4}}}}\n"


def with_rows(load: Load, name: str = "own.yaml", low: str = "1.0e-4") -> SweepConfig:
    here = load().run_folder.parent.parent
    (here / name).write_text(ROWS.format(low=low))
    return load(f"guidelines: [{name}]")


def test_rows_of_the_users_own_that_are_the_same_go_on_with_the_former_space(load: Load) -> None:
    former = started_with(with_rows(load), high=1e-3)
    again = with_rows(load)
    assert space_of_study(again, space_of(again)).fingerprint() == former.fingerprint()


@pytest.mark.parametrize("changed", ["low", "none", "first"])
def test_rows_of_the_users_own_that_are_not_the_same_are_an_edit(load: Load, changed: str) -> None:
    started_with(load() if changed == "first" else with_rows(load), high=1e-3)
    edited = (
        load() if changed == "none" else with_rows(load, low="1.0e-4" if changed == "first" else "9.0e-5")
    )
    now = space_of(edited)
    assert space_of_study(edited, now) is now


def test_a_study_that_does_not_say_with_which_rows_it_started_is_an_edit(load: Load) -> None:
    config = with_rows(load)
    started_with(config, high=1e-3)
    study_of(config).set_user_attr("guidelines", [{"id": "own"}])
    now = space_of(config)
    assert space_of_study(config, now) is now


def test_ends_that_the_sweep_moved_by_itself_are_put_back(load: Load) -> None:
    config = load()
    former = started_with(config, high=1e-3)
    study = study_of(config)
    moved = Widening(dimension="learning_rate", side="high", before=1e-3, after=3e-3, best=1, finished=8)
    record_widening(study, moved, former)
    found = space_of_study(config, space_of(config))
    assert found.fingerprint() == former.fingerprint()
    assert "widened" not in found.context


def test_the_same_ranges_and_a_new_sweep_are_left_alone(load: Load) -> None:
    config = load()
    now = space_of(config)
    assert space_of_study(config, now) is now
    started_with(config)
    assert space_of_study(config, now) is now


def test_a_stored_space_that_is_not_the_studys_is_not_trusted(load: Load) -> None:
    config = load()
    started_with(config, high=1e-3)
    now = space_of(config)
    dimensions = [replace(d, high=5e-4) if d.name == "learning_rate" else d for d in now.dimensions]
    study_of(config).set_user_attr("space", replace(now, dimensions=tuple(dimensions)).to_dict())
    assert space_of_study(config, now) is now
    study_of(config).set_user_attr("space", {"dimensions": [{}]})
    assert space_of_study(config, now) is now
