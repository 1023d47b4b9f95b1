"""The mean rate over a run is that of transformers' schedules."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest

from files_and_text.choices import SCHEDULERS
from lora_runner.config import TrialConfig
from lora_runner.optim.schedules import schedule_factor
from results.effects.mean_rate import mean_rate


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize(("steps", "warmup"), [(8, 0), (8, 1), (40, 15), (200, 10), (3000, 300)])
def test_the_mean_is_that_of_the_factors_of_every_step(name: str, steps: int, warmup: int) -> None:
    config = TrialConfig(learning_rate=2e-4, lr_scheduler_type=name, warmup_steps=warmup, max_steps=steps)
    factor = schedule_factor(config)
    expected = 2e-4 * fmean(factor(step) for step in range(steps))
    values: Any = {
        "learning_rate": 2e-4, "lr_scheduler_type": name, "warmup_steps": warmup, "max_steps": steps
    }  # fmt: skip
    assert mean_rate(values) == pytest.approx(expected, rel=0.02)


def test_a_warmup_share_is_rounded_up_to_steps_and_arguments_count() -> None:
    values: Any = {"learning_rate": 1.0, "lr_scheduler_type": "constant_with_warmup", "max_steps": 4}
    assert mean_rate(values | {"warmup_ratio": 0.3}) == pytest.approx((0 + 0.5 + 1 + 1) / 4)
    cosine: Any = {"learning_rate": 1.0, "lr_scheduler_type": "cosine_with_min_lr", "max_steps": 400}
    assert mean_rate(cosine, {"min_lr": 0.5}) == pytest.approx(0.75, abs=0.01)
    assert mean_rate({"max_steps": 4}) is None
