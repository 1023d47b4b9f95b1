"""Tests of kernels run on CUDA, or in Triton's interpreter in a process that `test_interpreter.py` starts.

By hand: `TRITON_INTERPRET=1 python -m pytest tests/lora_runner/kernels/test_dense_matmul.py`.
"""

from __future__ import annotations

import random

import pytest
import torch

from tests.lora_runner.kernels.interpreter import FOLDER, select


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    select(config, items, FOLDER)


@pytest.fixture
def seed() -> int:
    """A new one for every test; pytest shows it where the test fails."""
    drawn = random.SystemRandom().randrange(2**31)
    print(f"seed {drawn}")
    torch.manual_seed(drawn)
    return drawn
