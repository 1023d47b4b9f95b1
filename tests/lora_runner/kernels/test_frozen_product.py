"""Products of the general path with a frozen weight, over all rows at once where a machine allows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lora_runner.kernels.dense_matmul import dense_matmul
from lora_runner.kernels.frozen_product import Kernel, use_way, way_for
from lora_runner.kernels.launch import observed
from lora_runner.layers.block_matmul import Blocks, matmul_into, matmul_shared
from tests.lora_runner.kernels.interpreter import DEVICE

pytestmark = pytest.mark.usefixtures("seed")
SIZES = (5, 64, 1, 30)


@pytest.fixture(autouse=True, params=["triton", "triton whole tiles"])
def way(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    use_way(DEVICE, torch.bfloat16, request.param)
    yield request.param
    use_way(DEVICE, torch.bfloat16, None)


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=dtype)


@pytest.mark.parametrize("transposed", [False, True], ids=["backward", "forward"])
def test_one_launch_for_all_blocks_with_the_bits_of_each_alone(transposed: bool) -> None:
    launched = list[str]()
    x, stored = drawn(sum(SIZES), 64), drawn(64, 72) if not transposed else drawn(72, 64)
    weight = stored.t() if transposed else stored
    with observed(lambda name, _: launched.append(name)):
        together = matmul_shared(x, weight, Blocks(SIZES))
    assert launched == ["dense_matmul_kernel"]
    assert torch.equal(together, dense_matmul(x, stored, transposed=transposed))
    for part, rows in zip(together.split(SIZES), x.split(SIZES), strict=True):
        assert torch.equal(matmul_shared(rows, weight, Blocks([len(rows)])), part)
        into = torch.empty_like(part)
        matmul_into(into, rows, weight)
        assert torch.equal(into, part)


def test_what_the_kernel_cannot_take_is_multiplied_block_by_block() -> None:
    launched = list[str]()
    x, weight = drawn(9, 64), drawn(64, 3)
    with observed(lambda name, _: launched.append(name)):
        found = matmul_shared(x, weight, Blocks([4, 5]))
    assert torch.allclose(found.double(), x.double() @ weight.double(), rtol=1e-2, atol=0.1)
    assert launched == []
    unaligned = drawn(64 * 64 + 1)[1:].view(64, 64)
    assert way_for(x, weight) is way_for(x, unaligned) is None


def test_another_dtype_and_a_way_that_is_withdrawn(way: Kernel) -> None:
    weight = drawn(64, 64)
    assert way_for(drawn(3, 64), weight) == way
    assert way_for(drawn(3, 64).float(), weight.float()) is None
    use_way(DEVICE, torch.bfloat16, None)
    assert way_for(drawn(3, 64), weight) is None


def test_the_librarys_product_takes_only_what_it_was_checked_for_and_no_higher_passes(way: Kernel) -> None:
    most = 4
    use_way(DEVICE, torch.bfloat16, "cublas", kernel=way, library_rows={(64, 32, True): most})
    stored = drawn(32, 64)
    x, weight = drawn(9, 64), stored.t()
    assert way_for(x, weight) == "cublas"
    slices = [torch.mm(x[start : start + most], weight) for start in range(0, 9, most)]
    assert torch.equal(matmul_shared(x, weight, Blocks([4, 5])), torch.cat(slices))
    # Another size, the other direction, another place in memory.
    assert way_for(x, drawn(48, 64).t()) == way
    assert way_for(drawn(9, 32), stored) == way
    unaligned = drawn(32 * 64 + 1)[1:].view(32, 64)
    assert way_for(x, unaligned.t()) is None
    use_way(DEVICE, torch.bfloat16, "cublas", library_rows={(64, 32, True): most})
    assert way_for(drawn(9, 32), stored) is None


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="one of triton, triton whole tiles, cublas, got 'cutlass'"):
        use_way(DEVICE, torch.bfloat16, "cutlass")  # type: ignore[arg-type]
