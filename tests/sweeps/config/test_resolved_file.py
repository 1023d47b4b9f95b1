"""The resolved file is read back as the same config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces import ON_REQUEST
from sweeps.config import SweepConfig, load_sweep, resolved
from sweeps.config.sections.training import SCHEDULER_OPTIONS
from sweeps.errors import ConfigError

# Names that YAML readers take for something else than text.
ODD_NAMES = ["1e-4", "no", "0x10", "2024-01-01", "1_000", "null", "12.5", "true", "007", "a"]
positive = st.floats(min_value=1e-12, max_value=1e6, allow_nan=False)
shares = st.floats(min_value=0, max_value=0.999)

budgets = st.one_of(
    st.fixed_dictionaries({"max_steps": st.integers(100, 10**6)}),
    st.fixed_dictionaries({"num_train_epochs": positive}),
)
evaluations = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"evaluations": st.integers(1, 100)}),
    st.sets(st.integers(1, 99), max_size=5).map(
        lambda p: {"report_at": [i / 100 for i in sorted(p)] + [1.0]}
    ),
)
optimizers = st.fixed_dictionaries(
    {},
    optional={
        "weight_decay": positive,
        "adam_beta1": shares,
        "adam_epsilon": positive,
        "seed": st.integers(0, 2**32 - 1),
        "gradient_checkpointing": st.booleans(),
        "embedding_optimizer_bits": st.sampled_from([32, 8]),
        "lr_scheduler_kwargs": st.sampled_from(
            [
                {"cosine": {"num_cycles": 0.25}},
                {"warmup_stable_decay": {"num_decay_steps": 5, "decay_type": "1-sqrt"}},
            ]
        ),
    },
)
ranges = st.tuples(st.floats(1e-7, 1e-4), st.floats(1.001e-4, 1e-1)).map(
    lambda p: {"low": p[0], "high": p[1]}
)
sweeps = st.fixed_dictionaries(
    {
        "name": st.sampled_from(ODD_NAMES),
        "model": st.fixed_dictionaries(
            {"name": st.sampled_from(["owner/model", "1e-4", "007"])},
            optional={
                "revision": st.sampled_from(["8e12345", "main", "1e10"]),
                "size": st.floats(1e6, 1e12),
                "compute_dtype": st.sampled_from(["auto", "float32"]),
                "trust_remote_code": st.booleans(),
            },
        ),
        "data": st.fixed_dictionaries(
            {"train": st.just("train.jsonl")},
            optional={
                "chat_template": st.text("{}% \n'\":#-é\t", min_size=1).map(lambda text: "{" + text),
                "max_eval_examples": st.one_of(st.none(), st.integers(1, 9)),
                "eval_fraction": st.floats(0.001, 0.9),
                "format": st.sampled_from(["auto", "text"]),
            },
        ),
        "training": st.tuples(budgets, evaluations, optimizers).map(lambda p: {**p[0], **p[1], **p[2]}),
    },
    optional={
        "scenario": st.sampled_from(["general", "short"]),
        "train_embeddings": st.sampled_from(
            [True, False, ["lm_head"], {"tokens": ["<|end|>", 7, "7", "yes", " ", "\n"]}]
        ),
        "space": st.fixed_dictionaries(
            {},
            optional={
                "learning_rate": ranges,
                "lr_scheduler_type": st.sets(st.sampled_from(sorted(SCHEDULER_OPTIONS)), min_size=2).map(
                    lambda names: {"choices": sorted(names)}
                ),
                "lora_r": st.just({"choices": [8, 16]}),
            },
        ),
        "lora": st.sampled_from([{"r": 4}, {"target_modules": ["q_proj", "no"]}, {"dropout": 0.1}]),
        "search": st.fixed_dictionaries(
            {"seed": st.integers(0, 99)},
            optional={
                "include": st.lists(st.sampled_from(ON_REQUEST), unique=True),
                "widen": st.just({"learning_rate": 2.5}),
                "pruner_options": st.just({"min_resource": "auto", "reduction_factor": 3}),
                "timeout_seconds": positive,
            },
        ),
        "trials": st.integers(1, 10**6),
        "seats": st.one_of(st.just("auto"), st.integers(1, 64)),
        "storage": st.sampled_from(["env:DB", "sqlite:///s.db", "mysql+pymysql://me@host/db"]),
        "output": st.sampled_from(["runs", "1e-4", "../no"]),
    },
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=sweeps)
def test_round_trip(folder: Path, data: dict[str, Any]) -> None:
    if isinstance(data.get("train_embeddings"), dict):
        data["training"].pop("embedding_optimizer_bits", None)
    # JSON is YAML with all text quoted.
    (folder / "s.yaml").write_text(json.dumps(data), encoding="utf-8")
    config = load_sweep(folder / "s.yaml", environ={})
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "sweep.yaml").write_text(resolved(config), encoding="utf-8")
    again = load_sweep(elsewhere / "sweep.yaml", environ={})
    assert again == config
    assert resolved(again) == resolved(config)


def test_a_null_that_is_not_the_default_is_kept(folder: Path) -> None:
    data = "{train: train.jsonl, max_eval_examples: null}"
    (folder / "sweep.yaml").write_text(f"name: x\nmodel: a/b\ndata: {data}\ntraining: {{max_steps: 9}}\n")
    config = load_sweep(folder / "sweep.yaml", environ={})
    (folder / "sweep.yaml").write_text(resolved(config))
    assert load_sweep(folder / "sweep.yaml", environ={}) == config
    assert config.data.max_eval_examples is None


def test_it_starts_with_a_comment_and_holds_no_secret(folder: Path) -> None:
    (folder / "s.yaml").write_text("name: x\nmodel: a/b\ndata: train.jsonl\ntraining: {max_steps: 9}\n")
    config = load_sweep(folder / "s.yaml", environ={"SWEEPS_STORAGE": "mysql://me:secret@host/db"})
    text = resolved(config)
    assert text.startswith("# ")
    assert "storage: env:SWEEPS_STORAGE" in text
    assert "secret" not in text
    assert f"train: {folder / 'train.jsonl'}" in text
    assert "per_device_train_batch_size: 8" in text


@pytest.mark.parametrize("field", sorted(SweepConfig.model_fields))
def test_every_key_of_a_full_config_is_written(folder: Path, field: str) -> None:
    (folder / "rows.yaml").write_text("rows:\n  scenario.general: {value: 3e-4}\n")
    (folder / "s.yaml").write_text(
        "name: x\nmodel: a/b\ndata: train.jsonl\ntraining: {max_steps: 9}\n"
        "storage: env:DB\nguidelines: [rows.yaml]\nmetric: exact_match\n"
    )
    assert f"\n{field}:" in "\n" + resolved(load_sweep(folder / "s.yaml", environ={}))


def test_a_run_folder_of_a_version_with_other_keys_is_read(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    values = {"model": "a/b", "data": "c/d", "training": {"max_steps": 9}, "output": str(tmp_path)}
    file.write_text(json.dumps({"name": "small", **values}))
    config = load_sweep(file, check_files=False)
    config.run_folder.mkdir()
    kept = config.run_folder / "sweep.yaml"
    kept.write_text(resolved(config).replace("  frozen_gib: 20.0\n", "  keep_frozen: 8\n"))
    assert "keep_frozen" in kept.read_text()
    assert load_sweep(config.run_folder, check_files=False) == config
    with pytest.raises(ConfigError) as error:  # asked for now
        load_sweep(config.run_folder, overrides={"reliability.keep_frozen": 3}, check_files=False)
    where = "override reliability.keep_frozen"
    assert str(error.value).startswith(f"{where}: reliability.keep_frozen is now frozen_gib, in GiB")
    copied = tmp_path / "copied.yaml"
    copied.write_text(kept.read_text())
    with pytest.raises(ConfigError, match=r"copied\.yaml:.* is now frozen_gib"):
        load_sweep(copied, check_files=False)
