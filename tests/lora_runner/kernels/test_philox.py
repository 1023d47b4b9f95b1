"""A mask drawn inside a kernel has the bits of `dropout.keep_mask`."""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

import random

import pytest
import torch
import triton
import triton.language as tl

from lora_runner.kernels.philox import keep_tile
from lora_runner.layers.dropout import LEVELS, keep_mask
from tests.lora_runner.kernels.interpreter import DEVICE

CPU = torch.device("cpu")


@triton.jit
def tile_kernel(out, keys, limits, first_row, first_column, in_features, BM: tl.constexpr, BK: tl.constexpr):
    keep = keep_tile(
        first_row, first_column, in_features, tl.load(limits), tl.load(keys), tl.load(keys + 1), BM, BK
    )
    places = tl.arange(0, BM)[:, None] * BK + tl.arange(0, BK)[None, :]
    tl.store(out + places, keep.to(tl.int8))


@pytest.mark.parametrize(("BM", "BK"), [(64, 64), (16, 128), (2, 16)])
def test_a_tile_has_the_bits_of_the_mask(seed: int, BM: int, BK: int) -> None:
    draw = random.Random(seed)
    for limit in (1, draw.randrange(2, LEVELS - 1), LEVELS - 1):
        in_features = 16 * draw.randrange(BK // 16, 20)
        first_row = draw.randrange(100)
        first_column = 16 * draw.randrange((in_features - BK) // 16 + 1)
        key = draw.choice([(0, 0), (2**63 - 1, 2**40), (draw.getrandbits(63), draw.getrandbits(20))])
        out = torch.empty(BM, BK, dtype=torch.int8, device=DEVICE)
        tile_kernel[(1,)](
            out,
            torch.tensor(key, device=DEVICE),
            torch.tensor([limit], dtype=torch.int32, device=DEVICE),
            first_row,
            first_column,
            in_features,
            BM=BM,
            BK=BK,
        )
        expected = keep_mask((first_row + BM, in_features), limit, key, CPU)
        expected = expected[first_row:, first_column : first_column + BK]
        assert torch.equal(out.bool().cpu(), expected), (limit, in_features, first_row, first_column, key)
