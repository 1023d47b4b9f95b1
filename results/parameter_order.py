"""The order in which hyperparameters are spoken of, and their names where a column is narrow."""

from __future__ import annotations

from collections.abc import Sequence

PARAMETER_ORDER = (
    "learning_rate",
    "embedding_learning_rate",
    "embedding_lr_ratio",
    "warmup_ratio",
    "warmup_steps",
    "lr_scheduler_type",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "weight_decay",
    "per_device_train_batch_size",
)
"""The order in which hyperparameters are spoken of; others follow by name."""


SHORT_NAMES = {
    "learning_rate": "lr",
    "embedding_learning_rate": "emb_lr",
    "embedding_lr_ratio": "emb_ratio",
    "lr_scheduler_type": "sched",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "lora_r": "r",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "weight_decay": "wd",
    "max_grad_norm": "clip",
    "per_device_train_batch_size": "batch",
    "gradient_accumulation_steps": "accum",
    "use_rslora": "rslora",
    "neftune_noise_alpha": "neftune",
    "label_smoothing_factor": "smooth",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "eps",
    "max_steps": "steps",
}
"""Key of the configuration -> head of a column; warmup is one column, in steps or as a share."""


def in_order(names: Sequence[str]) -> list[str]:
    """Names of hyperparameters in the order of `PARAMETER_ORDER`, each once."""
    known = {name: index for index, name in enumerate(PARAMETER_ORDER)}
    return sorted(dict.fromkeys(names), key=lambda name: (known.get(name, len(known)), name))
