"""Weights in 4 bits, bit for bit as bitsandbytes dequantizes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import Tensor

from lora_runner.kernels.dequantize import can_share_a_launch, dequantize_4bit_into, is_supported
from lora_runner.kernels.launch import observed
from tests.lora_runner.kernels.interpreter import DEVICE

pytestmark = pytest.mark.usefixtures("seed", "uncompiled")
WEIGHTS = [((48, 64), 64), ((7, 33), 64), ((3, 1), 64), ((130, 320), 64), ((9, 256), 128), ((5, 4096), 4096)]
"""Shape and block size: full blocks, an odd number of elements, less than one block, several programs.

Rows of whole blocks where blocks are larger: bitsandbytes 0.50 on a CPU takes a wrong scale otherwise.
"""


@pytest.fixture(scope="module")
def uncompiled() -> Iterator[None]:
    """bitsandbytes would compile what it computes odd shapes with."""
    with torch.compiler.set_stance("force_eager"):
        yield


def quantized(shape: tuple[int, int], dtype: torch.dtype, **settings: Any) -> tuple[Tensor, Any]:
    weight = torch.randn(shape, device=DEVICE).to(dtype)
    packed, state = quantize_4bit(weight, **settings)
    assert is_supported(packed, state)
    return packed, state


@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize(("shape", "blocksize"), WEIGHTS, ids=str)
def test_as_bitsandbytes(shape: tuple[int, int], blocksize: int, kind: str, double: bool) -> None:
    packed, state = quantized(
        shape, torch.bfloat16, quant_type=kind, compress_statistics=double, blocksize=blocksize
    )
    out = torch.full(shape, torch.nan, dtype=torch.bfloat16, device=DEVICE)
    dequantize_4bit_into(out, (packed, state))
    assert torch.equal(out, dequantize_4bit(packed, state))


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_into_rows_of_a_larger_tensor_in_any_dtype(stored: torch.dtype) -> None:
    """A weight saved in float16 is rounded to it first."""
    packed, state = quantized((5, 64), stored, quant_type="nf4", compress_statistics=True)
    for dtype in (torch.float32, torch.bfloat16):
        siblings = torch.full((12, 64), torch.nan, dtype=dtype, device=DEVICE)
        dequantize_4bit_into(siblings[4:9], (packed, state))
        assert torch.equal(siblings[4:9], dequantize_4bit(packed, state).to(dtype))
        assert bool(siblings[:4].isnan().all())
        assert bool(siblings[9:].isnan().all())


@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
@pytest.mark.parametrize("rows", [(48, 3, 80), (9,), (2, 2), (7, 1, 5)], ids=str)
def test_siblings_in_one_launch(rows: tuple[int, ...], double: bool) -> None:
    """Also where a weight has more than one program, or ends within a block."""
    columns = 33 if rows[0] == 7 else 192
    weights = [
        quantized((each, columns), torch.bfloat16, quant_type="nf4", compress_statistics=double)
        for each in rows
    ]
    assert can_share_a_launch(weights)
    out = torch.full((sum(rows) + 2, columns), torch.nan, dtype=torch.bfloat16, device=DEVICE)
    with observed(lambda name, made: launches.append(name)):
        launches: list[str] = []
        dequantize_4bit_into(out[: sum(rows)], *weights)
    assert launches == ["dequantize_kernel"]
    assert torch.equal(out[: sum(rows)], torch.cat([dequantize_4bit(*weight) for weight in weights]))
    assert bool(out[sum(rows) :].isnan().all())


def test_weights_that_are_not_alike_take_launches_of_their_own() -> None:
    usual = quantized((4, 64), torch.bfloat16, quant_type="nf4", compress_statistics=True)
    assert can_share_a_launch([usual, usual])
    assert not can_share_a_launch([usual] * 9)
    for shape, dtype, settings in (
        ((4, 64), torch.bfloat16, {"compress_statistics": False}),
        ((4, 64), torch.float16, {"compress_statistics": True}),
        ((4, 64), torch.bfloat16, {"compress_statistics": True, "blocksize": 128}),
        ((3, 33), torch.bfloat16, {"compress_statistics": True}),
    ):
        assert not can_share_a_launch([usual, quantized(shape, dtype, quant_type="nf4", **settings)])


def test_weights_stored_as_floats() -> None:
    packed, state = quantized((16, 64), torch.bfloat16, quant_type="nf4", quant_storage=torch.bfloat16)
    assert packed.dtype == torch.bfloat16
    out = torch.empty(16, 64, dtype=torch.bfloat16, device=DEVICE)
    dequantize_4bit_into(out, (packed, state))
    assert torch.equal(out, dequantize_4bit(packed, state))


def test_what_is_not_supported() -> None:
    packed, state = quantized((4, 64), torch.bfloat16, quant_type="nf4")
    assert not is_supported(packed.t(), state)
    with pytest.raises(ValueError, match=r"a weight of \(4, 64\) .* as many elements, not of \(4, 32\)"):
        dequantize_4bit_into(torch.empty(4, 32, device=DEVICE), (packed, state))
    state.absmax = state.absmax.half()
    assert not is_supported(packed, state)
