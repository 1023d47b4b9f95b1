"""The files that a sweep names: model folders and data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from files_and_text.problems import Problem
from sweeps.config import SweepConfig

FILE = """\
name: small
model: ./base
data: train.jsonl
training: {max_steps: 100}
"""


@pytest.fixture
def base(folder: Path) -> Path:
    """A model folder that is as it should be, as far as can be seen without loading it."""
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"\0" * 64)
    return base


def shard(base: Path, *present: str) -> None:
    (base / "model.safetensors").unlink()
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for name in present:
        (base / name).write_bytes(b"\0" * 64)


def test_a_good_folder(load: Callable[[str], SweepConfig], base: Path) -> None:
    assert load(FILE).model.name == str(base)


def test_a_good_folder_with_shards(load: Callable[[str], SweepConfig], base: Path) -> None:
    shard(base, "model-1.safetensors", "model-2.safetensors", "model-3.safetensors")
    assert load(FILE).model.name == str(base)


def only_pickles(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def only_an_adapter(base: Path) -> None:
    (base / "config.json").rename(base / "adapter_config.json")
    (base / "model.safetensors").rename(base / "adapter_model.safetensors")


BROKEN: list[tuple[Callable[[Path], object], list[str]]] = [
    (lambda base: (base / "model.safetensors").unlink(), ["has no weights (*.safetensors)."]),
    (only_pickles, ["has no weights", "'pytorch_model.bin' is a pickle, which can run code"]),
    (lambda base: (base / "config.json").unlink(), ["has no config.json"]),
    (only_an_adapter, ["must be a base model", "holds an adapter"]),
    (lambda base: shard(base, "model-1.safetensors"), ["lacks model-2.safetensors and 1 more"]),
    (lambda base: (base / "model.safetensors").write_text("version https://git-lfs.github.com"), ["LFS"]),
    (lambda base: base.rename(base.with_name("bse")), ["folder", "does not exist", "Did you mean 'bse'?"]),
    (lambda base: (base / "model.safetensors.index.json").write_text("[]"), ["cannot be read"]),
]  # fmt: skip


@pytest.mark.parametrize(("break_it", "words"), BROKEN)
def test_a_broken_model_folder(
    problems: Callable[[str], list[Problem]], base: Path, break_it: Callable[[Path], object], words: list[str]
) -> None:
    break_it(base)
    found = problems(FILE)
    assert all(item.line == 2 for item in found)
    for word in words:
        assert word in found[0].message


def test_a_file_is_no_model(problems: Callable[[str], list[Problem]], base: Path) -> None:
    (found,) = problems(FILE.replace("./base", "./base/model.safetensors"))
    assert "must be a folder" in found.message


@pytest.mark.parametrize("name", ["models/a/b", "what is this", "-x/y"])
def test_neither_folder_nor_hub_id(problems: Callable[[str], list[Problem]], name: str) -> None:
    (found,) = problems(FILE.replace("./base", f"'{name}'"))
    assert "not a hub id" in found.message


def test_data_files(problems: Callable[[str], list[Problem]], folder: Path, base: Path) -> None:
    (folder / "empty.csv").touch()
    (folder / "notes.txt").write_text("x")
    (folder / "nothing").mkdir()
    for train, word in {
        "empty.csv": "at least one record",
        "./notes.txt": "a data file ends in .jsonl",
        "nothing": "is empty",
        "a/b/c": "not a hub id",
        "gone/x.jsonl": "nor does its folder",
    }.items():
        (found,) = problems(FILE.replace("train.jsonl", train))
        assert word in found.message
        assert found.line == 3


def test_a_folder_of_data(load: Callable[[str], SweepConfig], folder: Path, base: Path) -> None:
    (folder / "parts").mkdir()
    (folder / "train.jsonl").rename(folder / "parts" / "train.jsonl")
    assert load(FILE.replace("train.jsonl", "parts")).data.train == str(folder / "parts")
