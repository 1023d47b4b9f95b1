"""One product over all rows: right, and of a trial's rows the same bits whatever else is in the call."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lora_runner.kernels.dense_matmul import dense_matmul, is_readable, is_supported
from tests.lora_runner.kernels.interpreter import DEVICE, DOT_DTYPES, INTERPRETED

SIDES = [(200, 264), (64, 1032)] if INTERPRETED else [(4096, 1024), (4096, 28672), (14336, 4096)]
"""(k, n); some end in a tile that is not full."""
TRIAL = 37 if INTERPRETED else 266


@pytest.fixture(params=SIDES, ids=str)
def sides(request: pytest.FixtureRequest) -> tuple[int, int]:
    found: tuple[int, int] = request.param
    return found


@pytest.fixture(params=[True, False], ids=["forward", "backward"])
def transposed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=DOT_DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype)


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("num_rows", [1, 130])
def test_a_product_is_that_of_float64_rounded(
    sides: tuple[int, int], transposed: bool, dtype: torch.dtype, num_rows: int
) -> None:
    k, n = sides
    x, weight = drawn(num_rows, k, dtype=dtype), drawn(k, n, dtype=dtype)
    stored = weight.t().contiguous() if transposed else weight
    found = dense_matmul(x, stored, transposed=transposed)
    exact = x.double() @ weight.double()
    # A float32 sum of k products: each addition rounds by at most half a unit of the sum of the magnitudes.
    # On a device the sums inside a matrix instruction are truncated, by up to a whole unit.
    bound = (x.double().abs() @ weight.double().abs()) * k * 2.0**-23
    bound += exact.abs() * torch.finfo(dtype).eps / 2
    assert found.dtype == dtype
    assert bool(((found.double() - exact).abs() <= bound).all())


@pytest.mark.usefixtures("seed")
def test_the_bits_of_a_trial_do_not_depend_on_what_else_is_in_the_call(
    sides: tuple[int, int], transposed: bool, dtype: torch.dtype
) -> None:
    k, n = sides
    weight = drawn(*((n, k) if transposed else (k, n)), dtype=dtype)
    trial = drawn(TRIAL, k, dtype=dtype)
    alone = dense_matmul(trial, weight, transposed=transposed)
    assert bool(alone.isfinite().all())
    nan, inf = float("nan"), float("inf")
    packs = ((0, 1, nan), (1, 0, 0.0), (91, 33, inf), (128, 100, None), (5, 128 - TRIAL % 128, -inf))
    for before, after, neighbour in packs:
        rows = drawn(before + TRIAL + after, k, dtype=dtype)
        if neighbour is not None:
            rows.fill_(neighbour)
        rows[before : before + TRIAL] = trial
        found = dense_matmul(rows, weight, transposed=transposed)
        assert torch.equal(found[before : before + TRIAL], alone), (before, after, neighbour)


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("num_rows", [129, 266] if INTERPRETED else [266, 1064, 2130, 8520])
def test_halved_tiles_have_the_bits_of_whole_ones(
    sides: tuple[int, int], transposed: bool, dtype: torch.dtype, num_rows: int
) -> None:
    k, n = sides
    x, weight = drawn(num_rows, k, dtype=dtype), drawn(*((n, k) if transposed else (k, n)), dtype=dtype)
    whole = dense_matmul(x, weight, transposed=transposed, halves_last=False)
    assert torch.equal(dense_matmul(x, weight, transposed=transposed), whole)


@pytest.mark.usefixtures("seed")
def test_an_input_that_no_descriptor_can_read_is_copied(transposed: bool, dtype: torch.dtype) -> None:
    x, weight = drawn(70, 64, dtype=dtype), drawn(64, 64, dtype=dtype)
    unaligned = drawn(70 * 64 + 1, dtype=dtype)[1:].view(70, 64).copy_(x)
    out = torch.empty_like(x)
    for same in (unaligned, x.t().contiguous().t()):
        assert not is_readable(same)
        assert dense_matmul(same, weight, transposed=transposed, out=out) is out
        assert torch.equal(out, dense_matmul(x, weight, transposed=transposed))


@pytest.mark.usefixtures("seed")
def test_rows_that_are_not_adjacent(transposed: bool, dtype: torch.dtype) -> None:
    """Columns of a larger activation, and a weight among its siblings."""
    x, weight = drawn(70, 128, dtype=dtype), drawn(64, 64, dtype=dtype)
    wide = torch.cat([weight, weight.new_full((64, 24), torch.nan)], dim=1)
    found = dense_matmul(x[:, 32:96], wide[:, :64], transposed=transposed)
    assert torch.equal(found, dense_matmul(x[:, 32:96].contiguous(), weight, transposed=transposed))


def test_what_is_supported() -> None:
    assert is_supported(4096, 128256, torch.bfloat16)
    assert is_supported(8, 24, torch.bfloat16)
    assert not is_supported(64, 64, torch.float32)
    assert not is_supported(12, 64, torch.bfloat16)
    assert not is_supported(64, 1, torch.bfloat16)
