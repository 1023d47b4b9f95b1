"""A trial's full configuration, from what every trial shares and what was drawn for this one."""

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

    `constants` are fields of a TrialConfig, their budget for the configured batch size: a searched one keeps
    it in examples, half the batch is twice the steps. `scheduler_kwargs` are by scheduler.
    """
    values = dict(constants)
    rate = float(params["learning_rate"])
    batch = int(params.get("per_device_train_batch_size", values["per_device_train_batch_size"]))
    steps = max(1, round(values["max_steps"] * values["per_device_train_batch_size"] / batch))
    scheduler = str(params.get("lr_scheduler_type", "linear"))
    ratio = params.get("embedding_lr_ratio")
    for name in ("lora_r", "lora_alpha", "lora_dropout", "weight_decay"):
        if name in params:
            values[name] = params[name]
    values |= {
        "learning_rate": rate,
        "embedding_learning_rate": rate * float(ratio) if ratio is not None else None,
        "lr_scheduler_type": scheduler,
        "lr_scheduler_kwargs": scheduler_kwargs.get(scheduler) or default_scheduler_kwargs(scheduler, steps),
        # transformers turns a ratio into steps with ceil; a whole number means the same everywhere.
        "warmup_steps": min(steps, math.ceil(float(params.get("warmup_ratio", 0.0)) * steps)),
        "max_steps": steps,
        "per_device_train_batch_size": batch,
    }
    return TrialConfig(**values)
