"""What a new study records about itself: its identity, the context of its results, and package versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from lora_runner.base.describe_adapters import describe_adapters
from lora_runner.base.load_model import base_digest
from lora_runner.base.model_class import model_class
from lora_runner.base.target_modules import extra_peft_targets
from lora_runner.metric.scores import MetricSpec, objective_of
from search_spaces import SearchSpace
from sweeps.config import SweepConfig
from sweeps.study.base_check import WEIGHTS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lora_runner.base.load_model import BaseSpec
    from lora_runner.base.quantization import Quantization
    from lora_runner.data import DataBundle

REPORTED_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "optuna",
    "ray",
    "triton",
    "lm-eval",
    "qlora-sweeps",
)


def study_context(
    config: SweepConfig,
    space: SearchSpace,
    data: DataBundle,
    model: PreTrainedModel,
    quantization: Quantization,
    metric: MetricSpec | None,
    *,
    model_size: float,
    max_steps: int,
    compute_dtype: str,
    token_ids: tuple[int, ...],
) -> dict[str, Any]:
    """The conditions under which the results hold; verdicts compare them with each row's own.

    `model` may be on the meta device; `token_ids` are those of `train_embeddings`.
    """
    context: dict[str, Any] = {
        "model": config.model.name,
        "revision": config.model.revision,
        "trust_remote_code": config.model.trust_remote_code,
        "model_size": model_size,
        "scenario": config.scenario,
        "method": config.method,
        "train_embeddings": config.trains_embeddings,
        "modules_to_save": list(config.embedding_modules),
        "max_steps": max_steps,
        "per_device_train_batch_size": config.training.per_device_train_batch_size,
        "gradient_accumulation_steps": config.training.gradient_accumulation_steps,
        "lora_r": config.lora.r,
        "lora_alpha": config.lora.alpha,
        "alpha_convention": "alpha/sqrt(r)" if config.lora.use_rslora else "alpha/r",
        "target_modules": config.lora.target_modules,
        "embedding_optimizer_bits": config.training.embedding_optimizer_bits,
        "max_length": config.data.max_length,
        "completion_only": config.data.completion_only,
        "data": dataclasses.asdict(config.data),
        "eval_set_hash": data.eval.digest,
        "seed": config.training.seed,
        "space_notes": space.context.get("notes", []),
        "quantization": quantization.name,
        "quantization_config": dict(quantization.settings),
        # peft's all-linear, which exported scripts use, would add adapters to these, or fail on them.
        "layers_without_adapter": extra_peft_targets(model),
        "adapters": describe_adapters(model, config.lora.target_modules),
        "model_class": model_class(model.config, config.model.name).__name__,
        "trainable_token_indices": list(token_ids),
        "data_format": data.format,
        "data_forms": list(data.forms),
        # As text, because the file may change. None: the tokenizer's own template, or none at all.
        "chat_template": data.chat_template if config.data.chat_template is not None else None,
        "data_account": data.account(),
        "num_eval_tokens": data.eval.num_target_tokens,
        "compute_dtype": compute_dtype,
    }
    if metric is not None:
        num_prompts = metric.num_prompts if metric.is_task else len(data.eval_prompts)
        context["metric"] = metric.identity() | {"num_prompts": num_prompts}
    return context


def study_identity(
    config: SweepConfig,
    space: SearchSpace,
    base: BaseSpec,
    context: Mapping[str, Any],
    metric: MetricSpec | None,
    *,
    train_digest: str,
) -> dict[str, Any]:
    """What must be equal for two runs to share a study; how it is searched and where it runs may change."""
    training = config.training.model_dump(
        mode="json",
        # Those that change no trial's results, and those that stand below in resolved form.
        exclude={
            "per_device_eval_batch_size",
            "gradient_checkpointing",
            "graphs",
            "evaluations",
            "report_at",
            "num_train_epochs",
        },
    )
    return {
        "metric": objective_of(metric),
        **({} if metric is None else {"measured": context["metric"]}),
        "model": {
            "name": config.model.name,
            "revision": config.model.revision,
            "quantization": context["quantization"],
        },
        "compute_dtype": context["compute_dtype"],
        "train_data": train_digest,
        "eval_data": context["eval_set_hash"],
        "space": space.fingerprint(),
        # By their ids: a token and its id are the same choice.
        "train_embeddings": {"tokens": context["trainable_token_indices"]}
        if context["trainable_token_indices"]
        else list(config.embedding_modules),
        "lora": config.lora.model_dump(mode="json"),
        "training": training | {"max_steps": context["max_steps"]},
        "report_at": list(config.training.report_percents),
        WEIGHTS: base_digest(base),
    }


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that results may depend on."""
    found = {}
    for package in REPORTED_PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
