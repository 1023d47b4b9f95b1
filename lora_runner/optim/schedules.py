"""Learning-rate schedules: transformers' own functions, reduced to one factor per step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import get_scheduler

from lora_runner.config import TrialConfig, default_scheduler_kwargs
from lora_runner.errors import TrialConfigError


def schedule_kwargs(config: TrialConfig) -> dict[str, Any]:
    """Arguments of the schedule function: the trial's own, or the defaults."""
    return config.lr_scheduler_kwargs or default_scheduler_kwargs(config.lr_scheduler_type, config.max_steps)


def schedule_factor(config: TrialConfig) -> Callable[[int], float]:
    """Factor on every group's peak learning rate at optimizer step 0, 1, ... of the trial.

    Both parameter groups share the factor, so warmup and decay keep the ratio of their learning rates. The
    step is the number of updates already made, as in transformers: with warmup, the first update has factor
    0. Raises TrialConfigError when the schedule refuses its arguments.
    """
    kwargs = schedule_kwargs(config)
    if config.lr_scheduler_type in ("constant", "constant_with_warmup") and kwargs:
        # transformers would ignore them silently.
        raise _refused(config, "it takes none")
    if any(isinstance(value, float) and not math.isfinite(value) for value in kwargs.values()):
        # transformers' functions end in max(0, factor), which turns NaN into a learning rate of 0.
        raise _refused(config, "numbers must be finite")
    stand_in = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    try:
        scheduler = get_scheduler(
            config.lr_scheduler_type,
            stand_in,
            num_warmup_steps=config.warmup_steps,
            # warmup_stable_decay takes one length or the other.
            num_training_steps=None if "num_stable_steps" in kwargs else config.max_steps,
            scheduler_specific_kwargs=dict(kwargs),
        )
        factor: Callable[[int], float] = scheduler.lr_lambdas[0]
        # Some arguments fail only in the phase of the schedule that reads them.
        for step in (0, config.warmup_steps, config.max_steps - 1):
            factor(step)
    except (TypeError, ValueError, KeyError, ArithmeticError) as error:
        raise _refused(config, f"{type(error).__name__}: {error}") from error
    return factor


def _refused(config: TrialConfig, reason: str) -> TrialConfigError:
    return TrialConfigError(
        f"lr_scheduler_type {config.lr_scheduler_type!r} refuses lr_scheduler_kwargs "
        f"{schedule_kwargs(config)}: {reason}"
    )
