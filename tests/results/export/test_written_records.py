"""The sweep's own records beside the settings of Axolotl and LLaMA-Factory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

import results.export.written_records as written_records
from results.best import best_config
from results.export import ExportResult
from results.export.registry import export
from results.export.written_records import SweepRecords

KEYS = yaml.safe_load(Path(__file__).with_name("published_keys.yaml").read_text(encoding="utf-8"))
SETTINGS = {"axolotl": "axolotl.yaml", "llama-factory": "train.yaml"}
RECORDS = SweepRecords(
    eval=[{"prompt": "hold\u2028 ", "completion": "b"}, {"prompt": "a ", "completion": "out"}],
    train=[{"prompt": f"{n} ", "completion": "x"} for n in range(3)],
    columns=["prompt", "completion"],
)


@pytest.fixture
def config(make_trial: Any, make_study: Any) -> dict[str, Any]:
    """Of a sweep that held out and drew its records."""
    found = best_config(make_study(make_trial(2.0, lr=8e-4, ratio=0.1), name="a sweep"))
    found["data"] |= {"eval": None, "eval_fraction": 0.1, "max_train_examples": 3, "max_eval_examples": 2}
    found["data"] |= {"forms": ["copies_in_eval"], "num_eval_records": 9, "num_eval_used": 2}
    return found


def entries(target: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The settings, and how they describe the training and the evaluation records."""
    settings = yaml.safe_load((folder / SETTINGS[target]).read_text(encoding="utf-8"))
    if target == "axolotl":
        return settings, settings["datasets"][0], settings["test_datasets"][0]
    described = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    return settings, described[settings["dataset"]], described[settings["eval_dataset"]]


def path_of(entry: dict[str, Any]) -> str:
    return entry.get("path") or entry["file_name"]


@pytest.mark.parametrize("target", SETTINGS)
def test_the_settings_name_the_sweeps_own_records_and_evaluate_on_them(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    result = export(target, config, None, tmp_path / "out", records=RECORDS)
    settings, train, evaluation = entries(target, tmp_path / "out")
    assert (path_of(train), path_of(evaluation)) == ("train.jsonl", "eval.jsonl")
    assert {tmp_path / "out" / name for name in ("train.jsonl", "eval.jsonl")} <= set(result.files)
    monkeypatch.chdir(tmp_path / "out")  # where the files say that the program runs
    for entry, records in ((train, RECORDS.train), (evaluation, RECORDS.eval)):
        # As both programs load a local file.
        read = datasets.load_dataset(
            "json", data_files=path_of(entry), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert read.to_list() == records
    assert set(settings) <= set(KEYS[target]["keys"])
    if target == "axolotl":
        assert settings["eval_steps"] == settings["max_steps"]  # once more at its end
    else:
        assert (settings["do_eval"], settings["dataset_dir"]) == (True, ".")
    said = " ".join(result.lossy)
    for gone in ("evaluated on", "drew 3", "that the evaluation set holds", "held out are trained"):
        assert gone not in said
    notes = " ".join(result.notes)
    assert "eval.jsonl holds the sweep's own evaluation records, in its order (2 records, 0.1 MiB)" in notes
    assert "train.jsonl holds the sweep's own training records, in its order (3 records, 0.1 MiB)" in notes
    assert "over batches, the sweep over tokens" in notes


@pytest.mark.parametrize("target", SETTINGS)
def test_records_that_are_too_large_are_not_written_and_what_that_changes_is_said(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(written_records, "MOST_MIB", 100 / 2**20)  # bytes that the two of `eval` fit in
    result = export(target, config, None, tmp_path, records=RECORDS)
    _, train, evaluation = entries(target, tmp_path)
    assert (path_of(train), path_of(evaluation)) == (config["data"]["train"], "eval.jsonl")
    assert not (tmp_path / "train.jsonl").exists()
    assert any("training records (3 records, 0.1 MiB) are not written" in note for note in result.notes)
    assert any("held its evaluation records out" in line for line in result.lossy)
    assert any("drew 3 training records" in line for line in result.lossy)


def test_llama_factory_is_told_of_columns_that_the_records_have(
    config: dict[str, Any], tmp_path: Path
) -> None:
    config["data"] |= {"format": "alpaca", "forms": []}
    columns = ["instruction", "input", "output"]
    records = SweepRecords(
        eval=[{"instruction": "a", "output": "b", "id": 7}],
        train=[{"instruction": "c", "input": "d", "output": "e"}],
        columns=columns,
    )
    export("llama-factory", config, None, tmp_path, records=records)
    _, train, evaluation = entries("llama-factory", tmp_path)
    assert train["columns"] == {"prompt": "instruction", "query": "input", "response": "output"}
    assert evaluation["columns"] == train["columns"]
    for name in ("train", "eval"):  # it fails on a record that lacks one of them
        (line,) = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        assert list(json.loads(line)) == columns


def test_scripts_select_records_themselves(config: dict[str, Any], tmp_path: Path) -> None:
    result: ExportResult = export("trl", config, None, tmp_path, records=RECORDS)
    assert not [file for file in result.files if file.suffix == ".jsonl"]
    assert '"max_eval_examples": 2' in (tmp_path / "train.py").read_text()
