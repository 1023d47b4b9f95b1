"""Schedule factors equal transformers' for every schedule that a trial may use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import get_scheduler

from files_and_text.choices import SCHEDULERS
from lora_runner.config import TrialConfig
from lora_runner.errors import TrialConfigError
from lora_runner.optim.schedules import schedule_factor, schedule_kwargs

RATE, STEPS = 3e-4, 25


def config(name: str, warmup: int = 4, **kwargs: Any) -> TrialConfig:
    return TrialConfig(
        learning_rate=RATE,
        max_steps=STEPS,
        warmup_steps=warmup,
        lr_scheduler_type=name,
        lr_scheduler_kwargs=kwargs,
    )


def rates_of_transformers(trial: TrialConfig, kwargs: dict[str, Any]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = get_scheduler(
        trial.lr_scheduler_type,
        optimizer,
        num_warmup_steps=trial.warmup_steps,
        num_training_steps=STEPS,
        scheduler_specific_kwargs=kwargs,
    )
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 1, 4, STEPS])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_factors_are_those_of_transformers_at_every_step(name: str, warmup: int) -> None:
    trial = config(name, warmup)
    # Arguments that transformers requires and the user left out.
    needed = {"cosine_with_min_lr": {"min_lr_rate": 0.1}, "warmup_stable_decay": {"num_decay_steps": 3}}.get(
        name, {}
    )
    factor = schedule_factor(trial)
    assert [RATE * factor(step) for step in range(STEPS)] == pytest.approx(
        rates_of_transformers(trial, needed)
    )


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("cosine", {"num_cycles": 1.5}),
        ("cosine_with_min_lr", {"min_lr": 1e-4}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.3, "num_cycles": 1.0}),
        ("warmup_stable_decay", {"num_decay_steps": 9, "min_lr_ratio": 0.2, "decay_type": "linear"}),
        ("inverse_sqrt", {"timescale": 6}),
    ],
)
def test_a_users_arguments_reach_the_schedule(name: str, kwargs: dict[str, Any]) -> None:
    trial = config(name, **kwargs)
    assert schedule_kwargs(trial) == kwargs
    factor = schedule_factor(trial)
    rates = [RATE * factor(step) for step in range(STEPS)]
    assert rates == pytest.approx(rates_of_transformers(trial, kwargs))
    default = schedule_factor(config(name))
    assert rates != pytest.approx([RATE * default(step) for step in range(STEPS)])


def test_the_stable_phase_may_be_told_by_its_own_length() -> None:
    factor = schedule_factor(config("warmup_stable_decay", num_stable_steps=10, num_decay_steps=5))
    assert [factor(step) for step in (4, 13)] == [1.0, 1.0]
    assert factor(19) == 0.0


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("linear", {"num_cycles": 1}),
        ("cosine", {"cycles": 1}),
        ("cosine", {"num_cycles": "many"}),
        ("cosine", {"num_warmup_steps": 3}),
        ("cosine", {"last_epoch": 5}),
        ("warmup_stable_decay", {"min_lr_ratio": float("inf"), "num_decay_steps": 3}),
        ("cosine", {"num_cycles": float("nan")}),
        ("cosine_with_min_lr", {"num_cycles": 1}),
        ("cosine_with_min_lr", {"min_lr": 1e-4, "min_lr_rate": 0.1}),
        ("warmup_stable_decay", {"min_lr_ratio": 0.1}),
        ("warmup_stable_decay", {"num_decay_steps": 3, "decay_type": "sudden"}),
        ("inverse_sqrt", {"timescale": 0}),
        ("inverse_sqrt", {"timescale": "long"}),
        ("constant", {"min_lr": 1e-5}),
        ("constant_with_warmup", {"min_lr": 1e-5}),
    ],
)
def test_arguments_that_a_schedule_does_not_take_are_an_error(name: str, kwargs: dict[str, Any]) -> None:
    with pytest.raises(
        TrialConfigError,
        match=rf"lr_scheduler_type '{name}' refuses lr_scheduler_kwargs .*{next(iter(kwargs))}",
    ):
        schedule_factor(config(name, **kwargs))
