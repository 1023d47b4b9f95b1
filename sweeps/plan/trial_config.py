"""A trial's full configuration, from the values all trials share and those drawn for this one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lora_runner.config import TrialConfig, default_scheduler_kwargs


def trial_config(
    params: Mapping[str, Any],
    constants: Mapping[str, Any],
    scheduler_kwargs: Mapping[str, Mapping[str, Any]],
) -> TrialConfig:
    """The configuration of the trial with these parameters; raises TrialConfigError.

    `constants` are fields of a TrialConfig. Their `max_steps` is for the configured batch size; a searched
    batch size keeps the number of examples, so half the batch size means twice the steps. `scheduler_kwargs`
    are by scheduler.
    """
    values = dict(constants)
    learning_rate = float(params["learning_rate"])
    batch_size = int(params.get("per_device_train_batch_size", values["per_device_train_batch_size"]))
    steps = max(1, round(values["max_steps"] * values["per_device_train_batch_size"] / batch_size))
    scheduler = str(params.get("lr_scheduler_type", "linear"))
    ratio = params.get("embedding_lr_ratio")
    for name in ("lora_r", "lora_alpha", "lora_dropout", "weight_decay"):
        if name in params:
            values[name] = params[name]
    values |= {
        "learning_rate": learning_rate,
        "embedding_learning_rate": learning_rate * float(ratio) if ratio is not None else None,
        "lr_scheduler_type": scheduler,
        "lr_scheduler_kwargs": scheduler_kwargs.get(scheduler) or default_scheduler_kwargs(scheduler, steps),
        # Rounded up as in transformers; in whole steps, so that every library does the same.
        "warmup_steps": min(steps, math.ceil(float(params.get("warmup_ratio", 0.0)) * steps)),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
    }
    return TrialConfig(**values)
