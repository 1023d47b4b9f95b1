"""`sweeps init` writes a file that can be read back, starts from the tables, and never overwrites another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search_spaces import space_for
from sweeps.cli.new_sweep_file import init_sweep
from sweeps.config import SweepConfig, load_sweep, space_of
from sweeps.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a training file."""
    (tmp_path / "train.jsonl").write_text('{"text": "hello"}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_STORAGE", raising=False)
    return tmp_path


def init(model: str = "some/Model-8B", path: str = "sweep.yaml", **options: Any) -> SweepConfig:
    given = {"train": "train.jsonl", "count_parameters": lambda model: 8e9, **options}
    return init_sweep(model, path=Path(path), **given)


@pytest.mark.parametrize("scenario", ["general", "instruction", "complex", "short", "long"])
@pytest.mark.parametrize("train_embeddings", [True, False])
def test_the_file_gives_the_tables_own_space(folder: Path, scenario: str, train_embeddings: bool) -> None:
    written = init(scenario=scenario, train_embeddings=train_embeddings)
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
    init()
    text = (folder / "sweep.yaml").read_text()
    assert "scenario.general" in text
    assert "size.7-8b" in text
    assert "counted from the model's config" in text
    assert "general, instruction, complex, short, long" in text


def test_a_minimum_rate_is_written_as_a_share(folder: Path) -> None:
    written = init()
    line = "lr_scheduler_kwargs: {cosine_with_min_lr: {min_lr_rate: 0.1}}\n"
    assert f"  # {line}" in (folder / "sweep.yaml").read_text()
    assert written.training.lr_scheduler_kwargs == {}


def test_the_size_is_that_of_the_model(folder: Path) -> None:
    config = init("a/b", count_parameters=lambda model: 7e9 if model == "a/b" else 0)
    assert config.model.size == 7e9


def test_paths_are_written_from_the_files_own_folder(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "eval.jsonl").write_text("{}\n")
    config = init(path="deep/s.yaml", eval="deep/eval.jsonl")
    assert config.data.train == str(folder / "train.jsonl")
    assert config.data.eval == str(folder / "deep" / "eval.jsonl")
    assert "eval: ./eval.jsonl" in (folder / "deep" / "s.yaml").read_text()


def test_it_never_overwrites(folder: Path) -> None:
    (folder / "sweep.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="never overwritten"):
        init()
    assert (folder / "sweep.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"train": "trian.jsonl"}, "Did you mean 'train.jsonl'?"),
        ({"scenario": "genral"}, "Did you mean 'general'?"),
        ({"model": "./gone-8b"}, "does not exist"),
        ({"path": "gone/s.yaml"}, "does not exist"),
        ({"max_steps": 0}, "max_steps must be"),
    ],
)
def test_bad_input_writes_nothing(folder: Path, arguments: dict[str, object], word: str) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        init(**arguments)  # type: ignore[arg-type]
    assert word in str(caught.value)
    assert "sweep.yaml" not in str(caught.value)
    assert sorted(folder.rglob("*")) == before
