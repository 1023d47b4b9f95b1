"""Tests of kernels run on CUDA, or in Triton's interpreter in a process that `test_interpreter.py` starts.

By hand: `TRITON_INTERPRET=1 python -m pytest tests/lora_runner/kernels/test_dense_matmul.py`.
"""

from __future__ import annotations

import random

import pytest
import torch

from tests.lora_runner.kernels.interpreter import FOLDER, INTERPRETED, NOT_INTERPRETED


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot run in this process; what runs on CUDA gets the mark `gpu`."""
    kept, dropped = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        runs = True
        if item.path.parent == FOLDER:
            of_kernels = item.path.name not in NOT_INTERPRETED
            runs = (INTERPRETED or torch.cuda.is_available()) if of_kernels else not INTERPRETED
            if of_kernels and not INTERPRETED:
                item.add_marker(pytest.mark.gpu)
            if INTERPRETED:  # NumPy warns where it computes with a NaN or an infinity
                item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
        (kept if runs else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


@pytest.fixture
def seed() -> int:
    """A new one for every test; pytest shows it where the test fails."""
    drawn = random.SystemRandom().randrange(2**31)
    print(f"seed {drawn}")
    torch.manual_seed(drawn)
    return drawn
