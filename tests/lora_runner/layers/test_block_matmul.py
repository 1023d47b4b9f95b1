"""Matmuls by block, and row-wise operations of a decoder: the same bits in any pack, on CUDA too."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lora_runner.layers import onednn_matmul as onednn
from lora_runner.layers.block_matmul import (
    Blocks,
    matmul_by_block,
    matmul_into,
    matmul_shared,
    outer_by_block,
)
from tests.lora_runner.devices import DEVICE

pytestmark = pytest.mark.gpu
# bfloat16 on CUDA, as packs compute there, with sizes of Llama-3.1-8B; smaller on a CPU.
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
WIDE, NARROW = (14336, 4096) if DEVICE.type == "cuda" else (352, 128)
SIZES = [1, 300, 17, 128, 2048, 8, 64] if DEVICE.type == "cuda" else [1, 30, 17, 128, 8]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=DEVICE, dtype=DTYPE)


def parts() -> list[slice]:
    ends = [0, *torch.tensor(SIZES).cumsum(0).tolist()]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def near(out: Tensor, exact: Tensor) -> bool:
    return float((out.double() - exact).norm() / exact.norm()) < 1e-2


@pytest.mark.parametrize("transposed", [False, True], ids=["backward", "forward"])
@pytest.mark.parametrize(("rows", "columns"), [(WIDE, NARROW), (NARROW, WIDE)])
def test_a_product_with_a_frozen_weight(rows: int, columns: int, transposed: bool) -> None:
    weight = drawn(columns, rows).t() if transposed else drawn(rows, columns)
    x = drawn(sum(SIZES), rows, seed=1)
    together = matmul_shared(x, weight, Blocks(SIZES))
    assert near(together, x.double() @ weight.double())
    for size, part in zip(SIZES, parts(), strict=True):
        assert torch.equal(matmul_shared(x[part].clone(), weight, Blocks([size])), together[part])


@pytest.mark.parametrize("rank", [8, 16, 64])
def test_products_with_adapters_of_their_own(rank: int) -> None:
    x, adapters = drawn(sum(SIZES), NARROW), drawn(len(SIZES), rank, NARROW, seed=1)
    shrunk = matmul_by_block(x, adapters.transpose(1, 2), Blocks(SIZES))
    grown = matmul_by_block(shrunk, adapters, Blocks(SIZES))
    for i, (size, part) in enumerate(zip(SIZES, parts(), strict=True)):
        assert near(shrunk[part], x[part].double() @ adapters[i].t().double())
        one = Blocks([size])
        alone = matmul_by_block(x[part].clone(), adapters[i : i + 1].transpose(1, 2), one)
        assert torch.equal(alone, shrunk[part])
        assert torch.equal(matmul_by_block(alone, adapters[i : i + 1], one), grown[part])


@pytest.mark.parametrize("rank", [8, 16, 64])
def test_gradients_of_adapters(rank: int) -> None:
    grad, shrunk = drawn(sum(SIZES), NARROW), drawn(sum(SIZES), rank, seed=1)
    together = outer_by_block(grad, shrunk, Blocks(SIZES))
    for i, (size, part) in enumerate(zip(SIZES, parts(), strict=True)):
        assert near(together[i], grad[part].t().double() @ shrunk[part].double())
        alone = outer_by_block(grad[part].clone(), shrunk[part].clone(), Blocks([size]))
        assert torch.equal(alone[0], together[i])


@pytest.mark.parametrize(("into", "out"), [(1, 64), (64, 1), (1, 1), (3, 5), (5, 64), (64, 7)])
def test_narrow_sides(into: int, out: int) -> None:
    """No side needs to be a multiple of 16 bytes: a gate has one output."""
    weight, sizes = drawn(out, into, seed=2), [*SIZES, 1]
    x, grad = drawn(sum(sizes), into), drawn(sum(sizes), out, seed=1)

    def outcome(rows: slice, sizes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        blocks, (here, back) = Blocks(sizes), (x[rows].clone(), grad[rows].clone())
        outer = outer_by_block(back, here, blocks)
        return matmul_shared(here, weight.t(), blocks), matmul_shared(back, weight, blocks), outer

    forward, backward, outer = outcome(slice(None), sizes)
    assert near(forward, x.double() @ weight.double().t())
    assert near(backward, grad.double() @ weight.double())
    start = 0
    for index, size in enumerate(sizes):
        part = slice(start, start + size)
        alone = outcome(part, [size])
        assert torch.equal(alone[0], forward[part])
        assert torch.equal(alone[1], backward[part])
        assert torch.equal(alone[2][0], outer[index])
        assert near(outer[index], grad[part].double().t() @ x[part].double())
        start += size


def test_a_norm_of_many_rows_is_that_of_sixteen() -> None:
    """With fewer, torch's reduction on CUDA adds in another order; micro-batches have more tokens."""
    norm = LlamaRMSNorm(NARROW).to(DEVICE, DTYPE).requires_grad_(False)
    x, grad = drawn(2048, NARROW), drawn(2048, NARROW, seed=1)

    def outcome(part: slice) -> tuple[Tensor, Tensor]:
        rows = x[part].clone().requires_grad_()
        out = norm(rows)
        return out, torch.autograd.grad(out, rows, grad[part])[0]

    together = outcome(slice(0, 2048))
    for part in (slice(0, 16), slice(16, 33), slice(100, 228), slice(1000, 2048)):
        for alone, all_rows in zip(outcome(part), together, strict=True):
            assert torch.equal(alone, all_rows[part])


def test_losses_of_rows_and_their_gradients() -> None:
    vocabulary = 128256 if DEVICE.type == "cuda" else 512
    logits, targets = drawn(300, vocabulary).float(), torch.arange(300, device=DEVICE)

    def outcome(part: slice) -> tuple[Tensor, Tensor]:
        rows = logits[part].clone().requires_grad_()
        losses = nn.functional.cross_entropy(rows, targets[part], reduction="none")
        return losses, torch.autograd.grad(losses.sum(), rows)[0]

    together = outcome(slice(0, 300))
    for part in (slice(0, 1), slice(7, 30), slice(30, 300)):
        for alone, all_rows in zip(outcome(part), together, strict=True):
            assert torch.equal(alone, all_rows[part])


@pytest.mark.parametrize("fails", [False, True])
def test_a_cpu_multiplies_with_a_narrow_weight_on_one_thread(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """For any number of rows; afterwards all threads are used again."""
    before, found, cpu = torch.get_num_threads(), list[int](), torch.device("cpu")
    torch.set_num_threads(3)

    def grouped(a: Tensor, b: Tensor, offs: Tensor) -> Tensor:
        found.append(torch.get_num_threads())
        if fails:
            raise RuntimeError("no memory")
        return torch.zeros(1)

    monkeypatch.setattr(nn.functional, "grouped_mm", grouped)
    raising = pytest.raises(RuntimeError, match="no memory") if fails else nullcontext()
    try:
        for rows in (4, 40_000):
            x, blocks = torch.zeros(rows, 128, device=cpu), Blocks([rows])
            for product in (
                lambda x=x, blocks=blocks: matmul_shared(x, torch.zeros(128, 128), blocks),
                lambda x=x, blocks=blocks: outer_by_block(x, x, blocks),
                lambda x=x, blocks=blocks: matmul_shared(x, torch.zeros(128, 136), blocks),
            ):
                with raising:
                    product()
                assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert found == [1, 1, 3] * 2


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU where oneDNN is faster, with weights of any size."""
    if not onednn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(onednn, "WIDE", 0)
    monkeypatch.setattr(onednn, "is_faster", lambda: True)


@pytest.mark.usefixtures("by_onednn")
@pytest.mark.parametrize("transposed", [False, True], ids=["backward", "forward"])
def test_a_wide_product_by_onednn(transposed: bool) -> None:
    """At any memory offset, and written into a slice as into a new tensor."""
    cpu = torch.device("cpu")
    weight = torch.randn(352, 128, device=cpu)
    weight = weight.t().contiguous().t() if transposed else weight
    x = torch.randn(sum(SIZES), 352, device=cpu)
    assert onednn.is_used_for(x, weight)
    together = matmul_shared(x, weight, Blocks(SIZES))
    assert float((together.double() - x.double() @ weight.double()).abs().max()) < 1e-4
    for shift, (size, part) in enumerate(zip(SIZES, parts(), strict=True)):
        moved = torch.empty(size * 352 + shift, device=cpu)[shift:].view(size, 352).copy_(x[part])
        assert torch.equal(matmul_shared(moved, weight, Blocks([size])), together[part])
        into = torch.empty(size, 128, device=cpu)
        matmul_into(into, moved, weight)
        assert torch.equal(into, together[part])


def test_onednn_is_left_alone_where_it_is_no_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_used_for(
        capability: str, vendor: str, size: int = 1024, dtype: torch.dtype = torch.float32
    ) -> bool:
        onednn.is_faster.cache_clear()
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(onednn, "_cpu_description", lambda: f"vendor_id\t: {vendor}\n")
        monkeypatch.setattr(onednn, "is_available", lambda: True)
        x = torch.zeros(1, size, dtype=dtype, device="cpu")
        return onednn.is_used_for(x, x.expand(size, size))

    try:
        assert is_used_for("AVX512", "AuthenticAMD")
        assert not is_used_for("AVX2", "AuthenticAMD")
        assert not is_used_for("AVX512", "GenuineIntel")
        assert not is_used_for("AVX512", "AuthenticAMD", size=256)
        assert not is_used_for("AVX512", "AuthenticAMD", dtype=torch.bfloat16)
    finally:
        onednn.is_faster.cache_clear()
