"""The order in which hyperparameters are spoken of."""

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


def in_order(names: Sequence[str]) -> list[str]:
    """Names of hyperparameters in the order of `PARAMETER_ORDER`, each once."""
    known = {name: index for index, name in enumerate(PARAMETER_ORDER)}
    return sorted(dict.fromkeys(names), key=lambda name: (known.get(name, len(known)), name))
