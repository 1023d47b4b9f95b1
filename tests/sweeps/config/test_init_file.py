"""`sweeps init` writes a file that is read back, seeded from the tables, and never over another."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces import space_for
from sweeps.cli.init_file import init_sweep
from sweeps.config import load_sweep, space_of
from sweeps.errors import ConfigError


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SWEEPS_STORAGE", raising=False)


@pytest.mark.parametrize("scenario", ["general", "instruction", "complex", "short", "long"])
@pytest.mark.parametrize("train_embeddings", [True, False])
def test_the_file_gives_the_tables_own_space(folder: Path, scenario: str, train_embeddings: bool) -> None:
    written = init_sweep("some/Model-8B", "train.jsonl", scenario=scenario, train_embeddings=train_embeddings)
    config = load_sweep(folder / "sweep.yaml")
    assert config == written
    assert config.data.train == str(folder / "train.jsonl")
    assert (config.name, config.model.size, config.scenario) == ("model-8b", 8e9, scenario)
    steps = config.training.max_steps
    assert steps == {"short": 99, "long": 1001}.get(scenario, 500)
    tables = space_for(
        scenario=scenario, model_size=8e9, max_steps=steps or 0, train_embeddings=train_embeddings
    )
    assert space_of(config).fingerprint() == tables.fingerprint()


def test_the_file_explains_its_ranges(folder: Path) -> None:
    init_sweep("some/Model-8B", "train.jsonl")
    text = (folder / "sweep.yaml").read_text()
    assert "scenario.general" in text
    assert "size.7-8b" in text
    assert "read from the model's name" in text
    assert "general, instruction, complex, short, long" in text


def test_a_minimum_rate_is_written_as_a_share(folder: Path) -> None:
    written = init_sweep("some/Model-8B", "train.jsonl")
    line = "lr_scheduler_kwargs: {cosine_with_min_lr: {min_lr_rate: 0.1}}\n"
    assert f"  # {line}" in (folder / "sweep.yaml").read_text()
    assert written.training.lr_scheduler_kwargs == {}
    rows = "rows:\n  scheduler.medium: {choices: [cosine_with_min_lr]}\n"
    (folder / "rows.yaml").write_text(rows)
    written = init_sweep("some/Model-8B", "train.jsonl", "own.yaml", guidelines=("rows.yaml",))
    assert f"  {line}" in (folder / "own.yaml").read_text()
    assert written.training.lr_scheduler_kwargs == {"cosine_with_min_lr": {"min_lr_rate": 0.1}}


def test_where_the_size_comes_from(folder: Path) -> None:
    assert init_sweep("a/b", "train.jsonl", "1.yaml", model_size=1.5e9).model.size == 1.5e9
    counted = init_sweep(
        "a/b", "train.jsonl", "2.yaml", count_parameters=lambda model: 7e9 if model == "a/b" else 0
    )
    assert counted.model.size == 7e9
    assert init_sweep("a/b-3.1-350m-chat", "train.jsonl", "3.yaml").model.size == 3.5e8
    with pytest.raises(ConfigError, match="give the number of parameters"):
        init_sweep("a/b-v0.3", "train.jsonl", "4.yaml")


def test_paths_are_written_from_the_files_own_folder(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "rows.yaml").write_text("rows:\n  scenario.general: {value: 3e-4}\n")
    config = init_sweep("a/b-7b", "train.jsonl", "deep/s.yaml", guidelines=("deep/rows.yaml",))
    assert config.data.train == str(folder / "train.jsonl")
    assert config.guidelines == (str(folder / "deep" / "rows.yaml"),)
    assert "- ./rows.yaml" in (folder / "deep" / "s.yaml").read_text()


def test_it_never_overwrites(folder: Path) -> None:
    (folder / "sweep.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="never overwritten"):
        init_sweep("some/Model-8B", "train.jsonl")
    assert (folder / "sweep.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"train": "trian.jsonl"}, "Did you mean 'train.jsonl'?"),
        ({"scenario": "genral"}, "Did you mean 'general'?"),
        ({"model": "./gone-8b"}, "does not exist"),
        ({"path": "gone/s.yaml"}, "does not exist"),
        ({"name": "a/b"}, "name must be"),
        ({"max_steps": 0}, "max_steps must be"),
        ({"guidelines": ("gone.yaml",)}, "does not exist"),
    ],
)
def test_bad_input_writes_nothing(folder: Path, arguments: dict[str, object], word: str) -> None:
    before = sorted(folder.rglob("*"))
    given: dict[str, object] = {"model": "some/Model-8B", "train": "train.jsonl", **arguments}
    with pytest.raises(ConfigError) as caught:
        init_sweep(**given)  # type: ignore[arg-type]
    assert word in str(caught.value)
    assert "sweep.yaml" not in str(caught.value)
    assert sorted(folder.rglob("*")) == before
