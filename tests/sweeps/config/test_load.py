"""What a good sweep file means: short forms, numbers as text, defaults, paths, overrides, the environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from sweeps.config import SweepConfig, load_sweep, parse_override, resolved, space_of
from sweeps.errors import ConfigError

Load = Callable[[str], SweepConfig]

GOOD = """\
name: small
model: some/model
data: train.jsonl
training: {max_steps: 100}
"""


def test_the_least_file_takes_the_defaults(load: Load, folder: Path) -> None:
    config = load(GOOD)
    assert config.model.name == "some/model"
    assert config.data.train == str(folder / "train.jsonl")
    assert (config.scenario, config.method, config.train_embeddings) == ("general", "qlora", False)
    assert (config.seats, config.workers, config.gpus_per_worker) == ("auto", "auto", 1)
    assert config.search.sampler == "tpe"
    assert config.search.pruner == "successive_halving"
    assert config.run_folder == folder / "runs" / "small"
    assert config.storage is None


def test_numbers_are_understood_as_text_and_in_every_notation(load: Load) -> None:
    training = "training: {max_steps: 1e3, weight_decay: '1e-4', adam_epsilon: 1e-6, max_grad_norm: \"0.5\"}"
    config = load(GOOD.replace("training: {max_steps: 100}", training) + "trials: '12'\nseats: 2.0\n")
    assert config.training.max_steps == 1000
    assert isinstance(config.training.max_steps, int)
    assert config.training.weight_decay == 1e-4
    assert config.training.adam_epsilon == 1e-6
    assert config.training.max_grad_norm == 0.5
    assert (config.trials, config.seats) == (12, 2)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("8B", 8e9), ("8.03e9", 8.03e9), ("'8.03e9'", 8.03e9), ("350m", 3.5e8), ("70 b", 7e10)],
)
def test_model_size(load: Load, size: str, parameters: float) -> None:
    config = load(GOOD.replace("some/model", f"{{name: some/model, size: {size}}}"))
    assert config.model.size == pytest.approx(parameters)


def test_sections_with_everything_commented_out_are_their_defaults(load: Load) -> None:
    assert load(GOOD + "lora:\n  # r: 8\nsearch:\nspace:\n") == load(GOOD)


def test_optuna_class_names(load: Load) -> None:
    config = load(
        GOOD + "search: {sampler: CmaEsSampler, sampler_options: {popsize: 8}, pruner: NopPruner}\n"
    )
    assert (config.search.sampler, config.search.pruner) == ("cmaes", "none")
    assert config.search.sampler_options == {"popsize": 8}


@pytest.mark.parametrize(
    ("written", "kept", "modules"),
    [
        ("true", True, ("embed_tokens", "lm_head")),
        ("yes", True, ("embed_tokens", "lm_head")),
        ("false", False, ()),
        ("[]", False, ()),
        ("[lm_head, embed_tokens, lm_head]", ("embed_tokens", "lm_head"), ("embed_tokens", "lm_head")),
        ("[lm_head]", ("lm_head",), ("lm_head",)),
    ],
)
def test_train_embeddings(load: Load, written: str, kept: object, modules: tuple[str, ...]) -> None:
    config = load(GOOD + f"train_embeddings: {written}\n")
    assert config.train_embeddings == kept
    assert config.embedding_modules == modules


def test_tokens_of_which_the_embeddings_alone_are_trained(load: Load) -> None:
    config = load(GOOD + "train_embeddings: {tokens: [<|user|>, 7, '7', ' ', <|user|>]}\n")
    assert config.embedding_tokens == ("<|user|>", 7, "7", " ")
    assert config.embedding_modules == ()
    assert config.trains_embeddings
    space = space_of(config, model_size=8e9)
    assert "embedding_lr_ratio" in space
    assert (
        space.fingerprint() == space_of(load(GOOD + "train_embeddings: true\n"), model_size=8e9).fingerprint()
    )
    narrowed = "train_embeddings: {tokens: [a]}\nspace: {embedding_lr_ratio: {low: 0.1, high: 1}}\n"
    assert space_of(load(GOOD + narrowed), model_size=8e9)["embedding_lr_ratio"].low == 0.1


def test_relative_paths_start_from_the_files_folder(folder: Path) -> None:
    (folder / "deep").mkdir()
    row = "{topic: scenario, parameter: learning_rate, value: 3e-4, when: {scenario: mine}}"
    (folder / "rows.yaml").write_text(f"rows:\n  scenario.mine: {row}\n")
    (folder / "chat.jinja").write_text("{{ messages }}")
    file = folder / "deep" / "s.yaml"
    file.write_text(
        "name: small\nmodel: some/model\ndata: {train: ../train.jsonl, chat_template: ../chat.jinja}\n"
        "training: {max_steps: 100}\nguidelines: [../rows.yaml]\nscenario: mine\noutput: ../out\n"
        "storage: sqlite:///../study.db\n"
    )
    config = load_sweep(os.path.relpath(file), environ={})
    assert config.data.train == str(folder / "train.jsonl")
    assert config.data.chat_template == str(folder / "chat.jinja")
    assert config.guidelines == (str(folder / "rows.yaml"),)
    assert config.output == str(folder / "out")
    assert config.storage == f"sqlite:///{folder / 'study.db'}"


def test_jinja_text_and_chatml_are_no_files(load: Load) -> None:
    for template in ("chatml", "{% for m in messages %}{{ m.content }}{% endfor %}"):
        config = load(GOOD.replace("train.jsonl", f'{{train: train.jsonl, chat_template: "{template}"}}'))
        assert config.data.chat_template == template


def test_hub_ids_stay_as_they_are(load: Load) -> None:
    config = load(GOOD.replace("train.jsonl", "{train: some/data:config, eval: squad}"))
    assert (config.data.train, config.data.eval) == ("some/data:config", "squad")


def test_a_folder_beside_the_file_wins_over_a_hub_id_of_its_name(load: Load, folder: Path) -> None:
    (folder / "some" / "model").mkdir(parents=True)
    (folder / "some" / "model" / "config.json").write_text("{}")
    (folder / "some" / "model" / "model.safetensors").write_bytes(b"\0" * 64)
    assert load(GOOD).model.name == str(folder / "some" / "model")


def test_overrides_win_and_their_paths_start_from_the_working_directory(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "s.yaml").write_text(GOOD)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(folder / "train.jsonl", elsewhere / "other.jsonl")
    monkeypatch.chdir(elsewhere)
    overrides = dict([parse_override("training.max_steps=30"), parse_override("model.revision=main")])
    config = load_sweep(folder / "s.yaml", overrides={**overrides, "data.eval": "other.jsonl"}, environ={})
    assert config.training.max_steps == 30
    assert (config.model.name, config.model.revision) == ("some/model", "main")
    assert config.data.eval == str(elsewhere / "other.jsonl")
    assert config.data.train == str(folder / "train.jsonl")


def test_overrides_have_their_own_place_in_errors(folder: Path) -> None:
    (folder / "s.yaml").write_text(GOOD + "trials: none\n")
    overrides = {
        "training.max_steps": 0,
        "lora.rank": 3,
        "name.x": 1,
        "space.learning_rate": {"low": 1, "high": 0.1},
    }
    with pytest.raises(ConfigError) as caught:
        load_sweep(folder / "s.yaml", overrides=overrides, environ={})
    places = [(item.path or "").removeprefix(str(folder)) for item in caught.value.problems]
    assert places[0] == "/s.yaml"
    assert set(places[1:]) == {f"override {key}" for key in overrides}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trials=3", ("trials", 3)),
        ("training.weight_decay=1e-4", ("training.weight_decay", 1e-4)),
        ("search.include=[lora_r, weight_decay]", ("search.include", ["lora_r", "weight_decay"])),
        ("space.learning_rate={low: 1e-5}", ("space.learning_rate", {"low": 1e-5})),
        ("guidelines=a.yaml", ("guidelines", "a.yaml")),
        ("storage=sqlite:///a=b.db", ("storage", "sqlite:///a=b.db")),
        ("model=a,b", ("model", "a,b")),
        ("storage=", ("storage", None)),
    ],
)
def test_parse_override(text: str, expected: tuple[str, object]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["trials", "=3", "space={low: 1"])
def test_an_override_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_override(text)


def test_the_environment_names_the_storage_only_where_the_file_is_silent(folder: Path) -> None:
    environ = {"SWEEPS_STORAGE": "postgresql://me:secret@host/db"}
    (folder / "s.yaml").write_text(GOOD)
    config = load_sweep(folder / "s.yaml", environ=environ)
    assert config.storage == "env:SWEEPS_STORAGE"
    assert "secret" not in repr(config)
    (folder / "s.yaml").write_text(GOOD + "storage: env:MINE\n")
    assert load_sweep(folder / "s.yaml", environ=environ).storage == "env:MINE"


def test_a_run_folder_stands_for_its_sweep_file(folder: Path) -> None:
    (folder / "sweep.yaml").write_text(GOOD)
    config = load_sweep(folder / "sweep.yaml", environ={})
    made = config.run_folder
    made.mkdir(parents=True)
    (made / "sweep.yaml").write_text(resolved(config))
    assert load_sweep(made, environ={}) == config
    # Moved, it is the run that stands there, not the one that stood elsewhere.
    moved = folder / "elsewhere" / config.name
    shutil.copytree(made, moved)
    assert load_sweep(moved, environ={}).run_folder == moved
    # Renamed too, once it holds anything that a run writes; its study keeps its name.
    other = moved.rename(moved.with_name("renamed"))
    (other / "study.db").touch()
    renamed = load_sweep(other, environ={"SWEEPS_STORAGE": "sqlite:///other.db"})
    assert (renamed.run_folder, renamed.name, renamed.storage) == (other, config.name, None)
    assert renamed == load_sweep(other / "sweep.yaml", environ={})


def test_a_project_folder_stands_for_the_sweep_file_in_it(folder: Path) -> None:
    project = folder / "project"
    project.mkdir()
    (project / "sweep.yaml").write_text(GOOD)
    config = load_sweep(project, environ={"SWEEPS_STORAGE": "sqlite:///other.db"}, check_files=False)
    assert config.run_folder == project / "runs" / config.name
    assert config.storage == "env:SWEEPS_STORAGE"
    # Called as its sweep is, it is still no run folder.
    project = project.rename(folder / config.name)
    moved = load_sweep(project, environ={}, check_files=False)
    assert moved.run_folder == project / "runs" / config.name
    with pytest.raises(ConfigError, match=r"the folder holds no sweep\.yaml"):
        load_sweep(folder, environ={})


def test_paths_in_the_run_folder_go_with_it(folder: Path) -> None:
    inside = "  train: runs/small/data/train.jsonl\n"
    (folder / "s.yaml").write_text(
        GOOD.replace("data: train.jsonl", f"data:\n{inside}") + "storage: journal:runs/small/study.log\n"
    )
    config = load_sweep(folder / "s.yaml", environ={}, check_files=False)
    config.run_folder.mkdir(parents=True)
    (config.run_folder / "sweep.yaml").write_text(resolved(config))
    assert load_sweep(config.run_folder, environ={}, check_files=False) == config
    (config.run_folder / ".run").touch()
    moved = config.run_folder.rename(folder / "moved")
    again = load_sweep(moved, environ={}, check_files=False)
    assert again.data.train == str(moved / "data" / "train.jsonl")
    assert again.storage == f"journal:{moved / 'study.log'}"


def test_a_config_is_frozen_and_checked_in_python_too() -> None:
    config = SweepConfig.model_validate(
        {"name": "x", "model": {"name": "a/b"}, "data": {"train": "c/d"}, "training": {"num_train_epochs": 2}}
    )
    with pytest.raises(ValidationError):
        config.trials = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        SweepConfig.model_validate({**config.model_dump(), "trials": 0})


def test_the_space_of_a_config(load: Load) -> None:
    text = GOOD.replace("some/model", "{name: some/model, size: 8.03e9}")
    text += "search: {include: [lora_r]}\ntrain_embeddings: true\n"
    text += "space:\n  learning_rate: {low: 2e-5, high: 4e-4}\n"
    space = space_of(load(text))
    assert (space["learning_rate"].low, space["learning_rate"].high) == (2e-5, 4e-4)
    assert "lora_r" in space
    assert "embedding_lr_ratio" in space


def test_the_space_needs_what_the_config_leaves_to_be_counted(load: Load) -> None:
    config = load(GOOD.replace("max_steps: 100", "num_train_epochs: 1"))
    with pytest.raises(TypeError, match="model_size and max_steps"):
        space_of(config)
    assert "learning_rate" in space_of(config, model_size=1e9, max_steps=50)
