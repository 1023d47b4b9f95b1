"""The rules of a trial's hyperparameters, and its hash."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from files_and_text.choices import SCHEDULERS
from lora_runner.config import TrialConfig
from lora_runner.errors import TrialConfigError

CONFIG = TrialConfig(learning_rate=2e-4, max_steps=10)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("learning_rate", [0, -1e-4, float("nan"), float("inf"), "1e-4", None, True]),
        ("embedding_learning_rate", [-1e-9, float("nan"), float("inf"), "x"]),
        ("lr_scheduler_type", ["cosin", "polynomial", ""]),
        ("lr_scheduler_kwargs", [None, ["num_cycles"]]),
        ("max_steps", [0, -1, 2.5, None]),
        ("warmup_steps", [-1, 11, 0.1]),
        ("per_device_train_batch_size", [0, 1.0]),
        ("gradient_accumulation_steps", [0, -4, "2"]),
        ("weight_decay", [-0.1, float("nan")]),
        ("max_grad_norm", [-1.0, float("nan"), float("inf")]),
        ("adam_beta1", [-0.1, 1.0]),
        ("adam_beta2", [-0.1, 1.0, 1.5]),
        ("adam_epsilon", [-1e-8]),
        ("lora_r", [0, -8, 8.0, True]),
        ("lora_alpha", [0, -16, float("nan")]),
        ("lora_dropout", [-0.1, 1.0]),
        ("seed", [0.5, None]),
    ],
)
def test_a_value_that_breaks_a_rule_is_named_with_it(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(TrialConfigError, match=field) as caught:
            replace(CONFIG, **{field: value})
        assert repr(value).strip("'") in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"embedding_learning_rate": 0.0},
        {"warmup_steps": 10},
        {"max_grad_norm": 0},
        {"weight_decay": 0},
        {"lora_dropout": 0.999},
        {"adam_beta1": 0.0},
        {"seed": -3},
        *({"lr_scheduler_type": name} for name in SCHEDULERS),
    ],
)
def test_values_on_the_edge_of_a_rule_are_fine(change: dict[str, Any]) -> None:
    replace(CONFIG, **change)


def test_all_broken_rules_are_reported_together() -> None:
    with pytest.raises(TrialConfigError, match=r"learning_rate.*lora_r.*lora_dropout"):
        TrialConfig(learning_rate=-1, max_steps=1, lora_r=0, lora_dropout=2)


def test_a_config_survives_json() -> None:
    config = replace(
        CONFIG, lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": 0.2}, seed=9
    )
    read = TrialConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert read == config
    assert read.hash() == config.hash()


def test_unknown_and_missing_fields_are_errors() -> None:
    with pytest.raises(TrialConfigError, match=r"unknown trial fields learning_rat; known: .*learning_rate"):
        TrialConfig.from_dict({"learning_rat": 1e-4, "max_steps": 3})
    with pytest.raises(TrialConfigError, match="missing trial fields learning_rate, max_steps"):
        TrialConfig.from_dict({"seed": 3})


def test_equal_configs_have_equal_hashes_and_any_change_another_one() -> None:
    whole = replace(CONFIG, lora_alpha=32, lr_scheduler_type="cosine", lr_scheduler_kwargs={"num_cycles": 1})
    real = replace(
        CONFIG, lora_alpha=32.0, lr_scheduler_type="cosine", lr_scheduler_kwargs={"num_cycles": 1.0}
    )
    assert whole == real
    assert whole.hash() == real.hash()
    changes: list[dict[str, Any]] = [
        {"learning_rate": 2.0000001e-4},
        {"embedding_learning_rate": 0.0},
        {"lr_scheduler_kwargs": {"a": 1}},
        {"lr_scheduler_type": "cosine"},
        {"use_rslora": True},
        {"seed": 1},
    ]
    hashes = {replace(CONFIG, **change).hash() for change in changes} | {CONFIG.hash()}
    assert len(hashes) == len(changes) + 1


def test_the_hash_is_the_same_in_every_process() -> None:
    assert CONFIG.hash() == "be8f1c77b660a544"


def test_rslora_scales_by_the_root_of_the_rank() -> None:
    assert replace(CONFIG, lora_r=16, lora_alpha=32).lora_scaling == 2.0
    assert replace(CONFIG, lora_r=16, lora_alpha=32, use_rslora=True).lora_scaling == 8.0


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        CONFIG.learning_rate = 1.0  # type: ignore[misc]
