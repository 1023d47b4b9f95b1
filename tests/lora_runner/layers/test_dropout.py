"""Dropout masks: what they depend on, and that the CUDA kernel draws the same bits."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lora_runner.layers.dropout import dropout_factors, dropout_key, keep_mask, threshold

CPU = torch.device("cpu")


def factors(*key: int, p: float = 0.3, shape: tuple[int, int] = (200, 500)) -> Tensor:
    return dropout_factors(shape, p, dropout_key(*key), CPU, torch.float32)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_a_mask_drops_its_share_and_keeps_the_mean(p: float) -> None:
    mask = factors(7, 3, 11, p=p)
    assert float((mask == 0).float().mean()) == pytest.approx(p, abs=0.01)
    assert float(mask.max()) == pytest.approx(1 / (1 - p), rel=1e-4)
    assert torch.equal(factors(1, 2, 3, p=0.0), torch.ones(200, 500))


def test_seed_layer_and_micro_batch_each_change_the_mask_and_nothing_else_does() -> None:
    first = factors(7, 3, 11)
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(first, factors(7, 3, 11))
    for other in ((8, 3, 11), (7, 4, 11), (7, 3, 12)):
        # Independent masks agree on p² + (1 - p)² of the elements.
        assert float((factors(*other) == first).float().mean()) == pytest.approx(0.58, abs=0.01)


def test_an_element_does_not_depend_on_how_many_follow_it() -> None:
    few, many = factors(7, 3, 11, shape=(3, 500)), factors(7, 3, 11, shape=(200, 500))
    assert torch.equal(few, many[:3])


def test_the_kernel_draws_what_numpy_draws() -> None:
    """In Triton's interpreter, which must be chosen before the kernel is imported."""
    script = """
import torch
from lora_runner.layers.dropout import dropout_key, keep_mask
from lora_runner.layers.dropout_kernel import philox_keep_mask
cpu = torch.device("cpu")
for shape in ((1, 1), (3, 7), (40, 100)):
    for limit in (0, 6554, 65535):
        for key in (dropout_key(5, 7, 1), dropout_key(0, 0, 0), (2**63 - 1, 2**40)):
            expected = keep_mask(shape, limit, key, cpu)
            assert torch.equal(philox_keep_mask(shape, limit, key, cpu), expected), (shape, limit, key)
print("same")
"""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_the_kernel_compiles_without_a_gpu(capability: int) -> None:
    from lora_runner.layers.dropout_kernel import COUNTERS, keep_kernel

    source = ASTSource(
        keep_kernel,
        {"out": "*i64", "key0": "i64", "key1": "i64", "limit": "i32", "num_counters": "i32"},
        {"COUNTERS": COUNTERS},
        {(0,): [["tt.divisibility", 16]]},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert len(compiled.asm["cubin"]) > 0


def test_the_limit_is_the_rate_in_65536ths() -> None:
    assert threshold(0.5) == 32768
    assert threshold(0.1) == 6554
    assert keep_mask((4, 4), 0, (0, 0), CPU).all()
