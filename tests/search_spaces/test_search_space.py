"""SearchSpace: suggesting through Optuna, grids, plain data, fingerprint."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

from files_and_text.problems import InputError
from files_and_text.yaml_lines import dump_yaml, load_yaml
from search_spaces import Dimension, SearchSpace, space_for

optuna.logging.set_verbosity(optuna.logging.WARNING)
ROOT = Path(__file__).parents[2]


def build(**given: Any) -> SearchSpace:
    run: dict[str, Any] = {"model_size": 8.03e9, "max_steps": 60, "train_embeddings": True}
    return space_for(**(run | given))


def test_real_trials_hold_the_active_dimensions_only() -> None:
    space = build(include=("lora_r", "weight_decay"), overrides={"lora_alpha": {"value": 32}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = set()
    for _ in range(40):
        trial = study.ask()
        params = space.suggest(trial)
        assert trial.params == params
        assert space.suggest(FixedTrial(params)) == params
        assert ("warmup_ratio" in params) == (params["lr_scheduler_type"] != "constant")
        assert params["lora_alpha"] == 32
        seen.add(params["lr_scheduler_type"])
        study.tell(trial, 0.0)
    assert seen == {"linear", "constant", "cosine"}


def test_first_trials_come_out_of_the_queue_as_they_went_in() -> None:
    space = build(
        include=("per_device_train_batch_size",), overrides={"lora_r": {"low": 4, "high": 64, "log": True}}
    )
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
    for first in space.first_trials:
        study.enqueue_trial(first.params)
    for first in space.first_trials:
        trial = study.ask()
        assert space.suggest(trial) == first.params
        study.tell(trial, 1.0)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_default_sampler_searches_the_space() -> None:
    space = build()
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=3, group=True))
    for number in range(12):
        trial = study.ask()
        params = space.suggest(trial)
        assert space.suggest(FixedTrial(params)) == params
        study.tell(trial, float(number))


def test_a_grid_is_one_that_optuna_takes() -> None:
    space = build(overrides={"lora_r": {"value": 8}, "embedding_lr_ratio": {"value": 0.25}})
    grid = space.grid(2)
    assert grid["learning_rate"] == [1e-5, 2e-3]
    assert grid["lora_r"] == [8]
    study = optuna.create_study(sampler=optuna.samplers.GridSampler(grid, seed=0))
    seen = set()

    def objective(trial: optuna.Trial) -> float:
        params = space.suggest(trial)
        assert all(value in grid[name] for name, value in params.items())
        seen.add(tuple(sorted((name, str(value)) for name, value in params.items())))
        return 0.0

    # Not by ask and tell: GridSampler stops the study from tell, which Optuna allows in optimize alone.
    study.optimize(objective, n_trials=50)
    assert len(study.trials) == 12
    # 2 rates x (2 schedulers x 2 warmups + constant)
    assert len(seen) == 10


def test_grid_points_are_even_in_log_and_inside() -> None:
    rate = build()["learning_rate"]
    assert rate.grid(3) == pytest.approx([1e-5, 2e-8**0.5, 2e-3], rel=1e-5)
    assert all(rate.contains(value) for value in rate.grid(17))
    assert rate.grid(1) == [rate.default]
    rank = build(overrides={"lora_r": {"low": 4, "high": 6}})["lora_r"]
    assert rank.grid(10) == [4, 5, 6]


def test_there_and_back_as_dict_json_and_yaml() -> None:
    space = build(
        scenario="complex",
        model_size=4.5e9,
        include=("lora_r", "per_device_train_batch_size"),
        overrides={"lora_dropout": {"value": 0}, "lr_scheduler_type": {"choices": ["constant", "cosine"]}},
    )
    assert SearchSpace.from_dict(space.to_dict()) == space
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    data, _ = load_yaml(dump_yaml(space.to_dict()))
    assert SearchSpace.from_dict(data) == space
    assert SearchSpace.from_dict(data).fingerprint() == space.fingerprint()


@pytest.mark.parametrize("data", [{}, {"dimensions": [{"name": "a"}], "first_trials": [], "context": {}}, 3])
def test_what_is_no_space_is_refused(data: Any) -> None:
    with pytest.raises(InputError, match="not a search space"):
        SearchSpace.from_dict(data)


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    code = (
        "from search_spaces import space_for;"
        "print(space_for(model_size=8.03e9, max_steps=60, train_embeddings=True).fingerprint())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert there.stdout.strip() == build().fingerprint()
    assert len(build().fingerprint()) == 64


def test_the_fingerprint_sees_what_a_sampler_sees() -> None:
    space = build()
    assert build(max_steps=30).fingerprint() != space.fingerprint()
    assert build(overrides={"learning_rate": {"high": 4e-3}}).fingerprint() != space.fingerprint()
    assert build(include=("lora_r",)).fingerprint() != space.fingerprint()
    unconditional = replace(space["warmup_ratio"], active_when=None)
    without = [unconditional if d.name == "warmup_ratio" else d for d in space.dimensions]
    assert SearchSpace(dimensions=tuple(without)).fingerprint() != space.fingerprint()
    other_words = SearchSpace(dimensions=space.dimensions, context={"notes": ["other"]})
    assert other_words.fingerprint() == space.fingerprint()


def test_unknown_dimension_suggests() -> None:
    with pytest.raises(KeyError, match="Did you mean 'learning_rate'"):
        build()["learning_rat"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "real", "low": 1, "high": 2, "default": 1}, "kind"),
        ({"kind": "float", "low": 2, "high": 1, "default": 1}, "low <= high"),
        ({"kind": "float", "low": 0, "high": 1, "log": True, "default": 1}, "low > 0"),
        ({"kind": "categorical", "choices": (), "default": 1}, "distinct choices"),
        ({"kind": "categorical", "choices": ("a", "a"), "default": "a"}, "distinct choices"),
        ({"kind": "float", "low": 1, "high": 2, "default": 3}, "default"),
        ({"kind": "int", "low": 1, "high": 9, "step": 2, "default": 2}, "default"),
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Dimension(name="x", **fields)


def test_a_condition_must_come_after_what_decides_it() -> None:
    space = build()
    with pytest.raises(ValueError, match="must come after"):
        SearchSpace(dimensions=(space["warmup_ratio"], space["lr_scheduler_type"]))
    with pytest.raises(ValueError, match="twice"):
        SearchSpace(dimensions=(space["learning_rate"], space["learning_rate"]))
