"""`Sweep.new`: the arguments of a call are checked as a sweep file is, and records become a data file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from sweeps.artifacts.run_folder import check_run_folder, write_run_folder
from sweeps.errors import ConfigError, RunFolderError
from sweeps.sweep import Sweep
from tests.sweeps.cli.calling import listing

RECORDS = [{"prompt": f"w{i}:", "completion": f"word{i}"[::-1]} for i in range(60)]
TRAINING = {"max_steps": 100, "per_device_train_batch_size": 4}
DATA = {"eval_fraction": 0.2, "max_length": 32}


@pytest.fixture
def model(tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SWEEPS_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "speech.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "Tiny Llama"))


def new(model: Path, train: Any = RECORDS, **keys: Any) -> Sweep:
    return Sweep.new(model, train, **{"training": TRAINING, "data": DATA, "trials": 4, **keys})


def test_a_sweep_of_arguments_is_that_of_a_file(model: Path) -> None:
    sweep = new(model, "speech.jsonl", space={"learning_rate": {"low": 1e-4, "high": 1e-2}}, name="mine")
    (model.parent / "s.yaml").write_text(
        "name: mine\nmodel: ./Tiny Llama\n"
        "data: {train: speech.jsonl, eval_fraction: 0.2, max_length: 32}\n"
        "training: {max_steps: 100, per_device_train_batch_size: 4}\ntrials: 4\n"
        "space: {learning_rate: {low: 1e-4, high: 1e-2}}\n"
    )
    assert sweep.config == Sweep.load("s.yaml").config


def test_what_nobody_says_has_a_default(model: Path) -> None:
    sweep = Sweep.new(str(model), Path("speech.jsonl"))
    assert sweep.run_folder == model.parent / "runs" / "tiny-llama-on-speech"
    assert sweep.config.training.max_steps == 500
    assert Sweep.new(model, RECORDS, scenario="short").config.name == "tiny-llama"
    there = Sweep.new(model, RECORDS, run_folder="results/first try!", name="mine")
    assert (there.run_folder, there.config.name) == (model.parent / "results" / "first try!", "mine")
    assert not there.run_folder.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"trails": 4}, "Sweep.new: trails is an unknown argument. Did you mean 'trials'?"),
        ({"evals": RECORDS}, "Sweep.new: evals is an unknown argument. Did you mean 'eval'?"),
        ({"max_steps": 4}, "max_steps is an unknown argument. It belongs under training."),
        (
            {"training": {"max_step": 4}},
            "training.max_step is an unknown key. Did you mean 'max_steps'?",
        ),
        ({"train": "speach.jsonl"}, "train: the file '{home}/speach.jsonl' does not exist. Did you mean"),
        ({"scenario": "genral"}, "scenario must be in the guideline tables; got 'genral'. Did you mean 'g"),
        ({"train": [["a", "b"]]}, "Sweep.new: train record 1 must be a dict; got list."),
        (
            {"train": 7},
            "train must be a path, a hub id, a datasets.Dataset, a DataFrame or a list of records; got int.",
        ),
        ({"eval": []}, "eval must hold at least one record; got none."),
        (
            {"eval": [{"text": object()}]},
            "eval record 1 must hold text, numbers, lists and dicts; got obj",
        ),
        (
            {"eval": datasets.DatasetDict({"a": datasets.Dataset.from_list(RECORDS)})},
            "got a mapping of a: give",
        ),
        ({"trials": 0, "seats": "many"}, "seats must be auto or a whole number, at least 1; got 'many'."),
    ],
)
def test_an_error_names_the_argument(model: Path, arguments: dict[str, Any], said: str) -> None:
    before = listing(model.parent)
    with pytest.raises(ConfigError) as raised:
        new(model, **{"train": RECORDS, **arguments})
    assert said.format(home=model.parent) in str(raised.value)
    assert listing(model.parent) == before


def test_records_are_planned_without_writing_and_written_once_with_the_sweep(model: Path) -> None:
    before = listing(model.parent)
    sweep = new(model, datasets.Dataset.from_list(RECORDS), eval=RECORDS[:7], data={"max_length": 32})
    plan = sweep.plan()
    assert listing(model.parent) == before
    identity = plan.study_spec.identity
    same = new(model, "speech.jsonl", eval=RECORDS[:7], data={"max_length": 32}).plan()
    assert identity == same.study_spec.identity
    assert plan.config == sweep.config
    train = Path(sweep.config.data.train)
    assert train.parent == sweep.run_folder / "data"
    assert plan.study_spec.context["data"]["train"] == str(train)
    # Killed between its first two writes, it can be started again.
    write_run_folder(sweep.config)
    (sweep.run_folder / "sweep.yaml").unlink()
    check_run_folder(sweep.config)
    write_run_folder(sweep.config)
    written = {file: file.stat().st_mtime_ns for file in train.parent.iterdir()}
    assert len(written) == 2
    again = new(model, RECORDS, eval=datasets.Dataset.from_list(RECORDS[:7]), data={"max_length": 32})
    write_run_folder(again.config)
    assert {file: file.stat().st_mtime_ns for file in train.parent.iterdir()} == written
    # The folder alone is enough, wherever it is.
    moved = Sweep.load(sweep.run_folder.rename(model.parent / "moved"))
    assert moved.plan().study_spec.identity == identity
    assert moved.config.data.train == str(model.parent / "moved" / "data" / train.name)


def test_an_error_in_a_record_names_the_argument_and_its_number(model: Path) -> None:
    sweep = new(model, [*RECORDS[:9], {"prompt": 3, "completion": "x"}, *RECORDS[10:]])
    with pytest.raises(Exception, match=r"train:10: "):
        sweep.plan()


def test_a_data_frame_is_its_records(model: Path) -> None:
    assert new(model, pd.DataFrame(RECORDS)).config == new(model, RECORDS).config


def test_a_callback_that_cannot_be_called_is_refused_before_anything_starts(model: Path) -> None:
    sweep = new(model)
    with pytest.raises(ConfigError, match="callbacks must be functions of a report; got 3"):
        sweep.run(callbacks=[print, 3])  # type: ignore[list-item]
    assert not sweep.run_folder.exists()


def test_a_sweep_that_has_not_started_names_the_call(model: Path) -> None:
    with pytest.raises(RunFolderError, match=r"in Python `sweep\.run\(\)`"):
        _ = new(model).best


def test_an_existing_run_folder_is_continued_or_refused_with_what_differs(model: Path) -> None:
    sweep = new(model)
    write_run_folder(sweep.config)
    before = listing(sweep.run_folder)
    more = new(model, trials=8, search={"sampler": "random"})
    assert (more.run_folder, more.config.trials) == (sweep.run_folder, 8)
    check_run_folder(more.config)
    with pytest.raises(RunFolderError) as raised:
        new(model, RECORDS[1:], training={**TRAINING, "max_steps": 50})
    text = str(raised.value)
    assert f"{sweep.run_folder} holds a sweep with other settings" in text
    assert "training.max_steps: 100 there, 50 here" in text
    assert "data.train: " in text
    assert "trials" not in text
    assert listing(sweep.run_folder) == before
