"""Studies built by hand, with the attributes that the keeper writes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from results.answer.answer import Answer
from results.answer.read_answer import read_answer
from results.sweep_result import read_study
from results.verdict.verdict import verdict
from search_spaces import Dimension, SearchSpace, load_guidelines

MAX_STEPS = 200
SCHEDULERS = ("linear", "constant", "cosine")

CONTEXT: dict[str, Any] = {
    "model": "example/llama-8b",
    "model_size": 8.03e9,
    "scenario": "general",
    "method": "qlora",
    "train_embeddings": True,
    "max_steps": MAX_STEPS,
    "quantization": "nf4",
    "compute_dtype": "bfloat16",
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "lora_r": 16,
    "lora_alpha": 16,
    "alpha_convention": "alpha/r",
    "target_modules": "all-linear",
    "modules_to_save": ["embed_tokens", "lm_head"],
    "data": {"train": "train.jsonl", "eval": "eval.jsonl", "eval_fraction": 0.1},
    "data_format": "prompt_completion",
    "completion_only": True,
    "max_length": 512,
    "num_eval_tokens": 12345,
    "eval_set_hash": "ab12",
    "seed": 3,
}

SPACE = SearchSpace(
    dimensions=(
        Dimension(name="learning_rate", kind="float", low=1e-5, high=2e-3, log=True, default=2e-4),
        Dimension(name="embedding_lr_ratio", kind="float", low=0.01, high=1.0, log=True, default=0.25),
        Dimension(name="lr_scheduler_type", kind="categorical", choices=SCHEDULERS, default="linear"),
        Dimension(
            name="warmup_ratio",
            kind="float",
            low=0.0,
            high=0.2,
            default=0.05,
            active_when=("lr_scheduler_type", ("linear", "cosine")),
        ),
    )
)

DISTRIBUTIONS = {
    "learning_rate": FloatDistribution(1e-5, 2e-3, log=True),
    "embedding_lr_ratio": FloatDistribution(0.01, 1.0, log=True),
    "lr_scheduler_type": CategoricalDistribution(SCHEDULERS),
    "warmup_ratio": FloatDistribution(0.0, 0.2),
}

STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "out_of_memory": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}

_names = itertools.count()


def trial(
    loss: float | None = None,
    *,
    lr: float = 2e-4,
    ratio: float = 0.25,
    scheduler: str = "linear",
    warmup: float = 0.05,
    outcome: str = "complete",
    rows: tuple[str, ...] = (),
    label: str = "",
    reports: dict[int, float] | None = None,
    reason: str = "",
    signs: tuple[str, ...] = (),
    attrs: dict[str, Any] | None = None,
) -> FrozenTrial:
    """One trial as the keeper leaves it; `loss` is the value of a complete one."""
    params: dict[str, Any] = {
        "learning_rate": lr,
        "embedding_lr_ratio": ratio,
        "lr_scheduler_type": scheduler,
    }
    if scheduler != "constant":
        params["warmup_ratio"] = warmup
    config = {
        "learning_rate": lr,
        "embedding_learning_rate": lr * ratio,
        "lr_scheduler_type": scheduler,
        "lr_scheduler_kwargs": {},
        "warmup_steps": round(warmup * MAX_STEPS) if scheduler != "constant" else 0,
        "max_steps": MAX_STEPS,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "lora_r": 16,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "seed": 3,
    }
    user_attrs: dict[str, Any] = {
        "config": config,
        "config_hash": "c0ffee",
        "origin": "guideline" if rows or label else "sampler",
        "rows": list(rows),
        "label": label,
        "attempt": 1,
        "seat": 0,
        "worker": 0,
        "signs": [{"sign": sign, "step": 7, "detail": ""} for sign in signs],
        "tokens_per_second": 100.5,
        "wall_seconds": 2.5,
        "num_tokens": 4000,
    }
    if outcome != "running":
        user_attrs["outcome"] = outcome
        user_attrs["stop_reason"] = reason or ("full budget" if outcome == "complete" else "")
    if outcome == "complete":
        user_attrs["num_steps"] = MAX_STEPS
    return create_trial(
        state=STATES[outcome],
        params=params,
        distributions={name: DISTRIBUTIONS[name] for name in params},
        value=loss if outcome == "complete" else None,
        intermediate_values=reports or ({100: loss} if outcome == "complete" and loss is not None else {}),
        user_attrs=user_attrs | (attrs or {}),
    )


def study(
    *trials: FrozenTrial,
    context: dict[str, Any] | None = None,
    space: SearchSpace | None = SPACE,
    guidelines: list[dict[str, Any]] | None = None,
    base: float | None = 3.0,
    storage: str | None = None,
    name: str | None = None,
) -> optuna.Study:
    """A study named like a sweep; `context` changes single entries of CONTEXT (None removes one)."""
    made = optuna.create_study(
        study_name=name or f"sweep-{next(_names)}", storage=storage, direction="minimize"
    )
    merged = {key: value for key, value in (CONTEXT | (context or {})).items() if value is not None}
    made.set_user_attr("metric", "eval_loss")
    made.set_user_attr("context", merged)
    made.set_user_attr("identity", {"train_data": "d1"})
    made.set_user_attr("guidelines", load_guidelines().to_list() if guidelines is None else guidelines)
    made.set_user_attr("versions", {"torch": "2.13.0", "transformers": "5.23.0"})
    if space is not None:
        made.set_user_attr("space", space.to_dict())
    if base is not None:
        made.set_user_attr("base_eval_loss", base)
    made.add_trials(trials)
    return made


def answer_of(
    of: optuna.Study, replicates: optuna.Study | None = None, *, target: int | None = None
) -> Answer:
    """The answer of a study, as `runs/mine`."""
    sweep = read_study(of)
    found = verdict(sweep, replicates) if sweep.started else None
    return read_answer(sweep, found, run_folder="runs/mine", target=target)


@pytest.fixture
def make_trial() -> Callable[..., FrozenTrial]:
    return trial


@pytest.fixture
def make_study() -> Callable[..., optuna.Study]:
    return study
