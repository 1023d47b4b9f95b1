"""The JSON schema accepts what the loader accepts, and the reference page is the classes' own text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from files_and_text.yaml_lines import load_yaml
from lora_runner.data_spec import DataSpec
from search_spaces import DIMENSION_NAMES
from sweeps.config import SweepConfig, load_text
from sweeps.config.reference.json_schema import is_own_schema, schema_text, sweep_file_schema
from sweeps.config.reference.keys import REQUIRED, SECTIONS, all_keys, keys_of
from sweeps.config.reference.page import page
from sweeps.errors import ConfigError

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
LEAST = {"name": "a", "model": "owner/model", "data": "train.jsonl", "training": {"max_steps": 100}}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = sweep_file_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_examples_fit_the_schema(file: Path, validator: Draft202012Validator) -> None:
    validator.validate(load_yaml(file)[0])


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"model": {"name": "owner/model", "size": "8B"}},
    {"data": {"train": "train.jsonl", "format": "auto", "max_eval_examples": None}},
    {"lora": None, "search": None, "metric": "exact_match", "space": None},
    {"lora": {"lora_r": 8, "target_modules": ["q_proj"]}},
    {"metric": {"name": "scores:mine", "direction": "maximize"}},
    {"search": {"sampler": "TPESampler", "sampler_options": {"multivariate": True}}},
    {"search": {"pruner": "hyperband", "pruner_options": {"max_resource": "auto"}}},
    {"search": {"include": ["lora_r"], "widen": {"learning_rate": 3}}},
    {"space": {"learning_rate": {"low": 1e-5, "high": 1e-3}, "lr_scheduler_type": {"value": "linear"}}},
    {"training": {"num_train_epochs": 1.5, "lr_scheduler_kwargs": {"cosine_with_min_lr": {"min_lr": 0}}}},
    {"train_embeddings": ["lm_head"]},
    {"train_embeddings": {"tokens": ["<|end|>", 3]}},
    {"seats": 3, "workers": "auto"},
    {"name": "a" * 80},
    {"name": "a.b_c-1"},
    {"storage": "env:SWEEPS_STORAGE"},
    {"storage": "journal:study.log"},
    {"storage": "postgresql+psycopg://me@host:5432/studies"},
    {"storage": None},
    {"training": {"max_steps": None, "num_train_epochs": 1}},
    {"training": {"max_steps": "10", "weight_decay": "1e-2"}},
    {"trials": "8", "seats": "2", "model": {"name": "owner/model", "size": "8e9"}},
    {"space": {"learning_rate": {"low": "1e-5", "high": "1e-3"}}},
]
REFUSED: list[dict[str, Any]] = [
    {"tirals": 3},
    {"trials": 0},
    {"name": 3},
    {"scenario": "genral"},
    {"model": {"nme": "owner/model"}},
    {"model": {"name": "owner/model", "size": "8 potatoes"}},
    {"data": {"train": "train.jsonl", "format": "mesages"}},
    {"data": {"train": "train.jsonl", "max_length": 1}},
    {"data": {"train": "train.jsonl", "eval_fraction": 1}},
    {"lora": {"rank": 8}},
    {"metric": "accuracy"},
    {"search": {"sampler": "tpee"}},
    {"search": {"sampler_options": {"popsize": 4}}},
    {"search": {"sampler": "random", "sampler_options": {"multivariate": True}}},
    {"search": {"pruner": "none", "pruner_options": {"min_resource": 1}}},
    {"search": {"include": ["learning_rate"]}},
    {"search": {"widen": {"learning_rate": 0.5}}},
    {"space": {"learning_rate": 2e-4}},
    {"space": {"rate": {"value": 2e-4}}},
    {"space": {"lr_scheduler_type": {"choices": ["cosin"]}}},
    {"training": {"max_steps": 100, "lr_scheduler_kwargs": {"linear": {"num_cycles": 1}}}},
    {"train_embeddings": ["q_proj"]},
    {"seats": "many"},
    {"name": "a/b"},
    {"name": ".."},
    {"name": "a."},
    {"name": "a b"},
    {"name": "a" * 81},
    {"storage": "x://"},
    {"storage": "env:"},
    {"storage": "journal:"},
    {"storage": "study.db"},
    {"training": {}},
    {"training": {"max_steps": None}},
    {"training": {"max_steps": 10, "num_train_epochs": 1}},
    {"trials": "0"},
    {"trials": "8.5"},
    {"training": {"max_steps": "ten"}},
    {"training": {"max_steps": 10, "weight_decay": "-1e-2"}},
]


@pytest.mark.parametrize("is_accepted", [True, False])
def test_the_schema_decides_as_the_loader_does(
    is_accepted: bool, validator: Draft202012Validator, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n')
    wrong = []
    for change in ACCEPTED if is_accepted else REFUSED:
        data = LEAST | change
        try:
            load_text(json.dumps(data), tmp_path / "sweep.yaml")
            loads = True
        except ConfigError:
            loads = False
        if not loads == validator.is_valid(data) == is_accepted:
            wrong.append(change)
    assert wrong == []


def test_every_key_is_described_with_what_it_may_be_and_its_default() -> None:
    keys = {key.path: key for key in all_keys()}
    assert {name for name in keys if "." not in name} == set(SweepConfig.model_fields)
    assert {f"data.{name}" for name in DataSpec.__dataclass_fields__} == {
        name for name in keys if name.startswith("data.")
    }
    assert all(key.meaning.endswith(".") and key.kind for key in keys.values())
    assert keys["data.max_length"].meaning == "Tokens per example; longer ones lose their end."
    assert (keys["data.max_length"].kind, keys["data.max_length"].default) == (
        "whole number, at least 2",
        1024,
    )
    assert keys["lora.r"].default_text == "16"
    assert keys["training.adam_epsilon"].default_text == "1e-8"
    assert keys["data.train"].default is REQUIRED
    assert keys["search.sampler"].kind == "tpe, random, gp, cmaes, grid, curve_gp"
    assert all(keys_of(section) for section in SECTIONS)


def test_the_page_is_current() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == page(), "python -m sweeps.config.reference > docs/configuration.md"
    assert all(f"| `{key.name}` |" in written for key in all_keys())
    assert all(f"`{name}`" in written for name in DIMENSION_NAMES)


def test_the_command_prints_the_schema_without_importing_anything_large() -> None:
    script = (
        "import sys\nfrom sweeps.cli.main import main\n"
        "try:\n    main(['schema'])\nexcept SystemExit:\n    pass\n"
        "large = {'torch', 'transformers', 'ray', 'optuna', 'pandas'}\n"
        "print(sorted(large & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == schema_text()
    assert done.stderr == "[]\n"


def test_a_schema_is_known_from_other_files(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(schema_text())
    (tmp_path / "other.json").write_text('{"title": "mine"}')
    assert is_own_schema(tmp_path / "own.json")
    assert not is_own_schema(tmp_path / "other.json")
    assert not is_own_schema(tmp_path / "missing.json")
