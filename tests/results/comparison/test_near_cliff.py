"""Which arms may lie near the cliff: all but those that differ from the best by lower rates alone."""

from __future__ import annotations

import pytest

from results.comparison.arms import Arm, may_be_near_cliff

BEST = {"learning_rate": 2e-4, "embedding_lr_ratio": 0.5, "lora_r": 16, "lr_scheduler_type": "cosine"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"learning_rate": 1e-4}, False),
        ({"embedding_lr_ratio": 0.1}, False),
        ({"learning_rate": 1e-4, "embedding_lr_ratio": 1.0}, False),  # embeddings at the best's rate
        ({"learning_rate": 1e-4, "embedding_lr_ratio": 1.5}, True),
        ({"learning_rate": 4e-4}, True),
        ({"lora_r": 64}, True),
        ({"lr_scheduler_type": "linear"}, True),
        ({"learning_rate": 1e-4, "lora_r": 64}, True),
        ({"learning_rate": 1e-4, "warmup_ratio": 0.1}, True),
        ({"learning_rate": 1e-4, "embedding_lr_ratio": None}, True),
        ({}, True),
    ],
)
def test_only_lower_rates_are_away_from_it(changed, expected):
    best = Arm(name="best", role="best", values=BEST)
    assert may_be_near_cliff(Arm(name="row", role="row", values=BEST | changed), best) is expected
