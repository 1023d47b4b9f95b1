"""Attention on CUDA: equal to transformers' sdpa, with the same bits in any pack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.layers.invariant_attention import invariant_attention
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import Pack
from tests.lora_runner.devices import no_cuda

BACKWARD = torch.ops.aten._scaled_dot_product_efficient_attention_backward.default


class Layer(nn.Module):
    """What transformers' function needs of an attention layer."""

    is_causal = True

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


def drawn(
    *, batch: int, groups: int = 2, length: int = 24, device: str = "cpu", size: int = 16
) -> list[Tensor]:
    """Query (B, 4, S, D), key and value with fewer heads; the same for a sequence in a batch of any size."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    found = []
    for heads in (4, 4 // groups, 4 // groups):
        x = torch.randn(batch, heads, length, size, generator=generator)
        found.append(x.to(device, dtype).requires_grad_())
    return found


def window(length: int, width: int) -> Tensor:
    at = torch.arange(length)
    seen = (at[:, None] >= at) & (at[:, None] - at < width)
    return seen[None, None]


def outcome(
    attend: Callable[..., Any], inputs: list[Tensor], mask: Tensor | None, **scale: float
) -> list[Tensor]:
    """The output and the gradients of the three inputs."""
    out, _ = attend(Layer(inputs[0].shape[1] // inputs[1].shape[1]), *inputs, mask, **scale)
    weights = torch.linspace(-1, 1, out.numel(), device=out.device, dtype=out.dtype).view(out.shape)
    return [out, *torch.autograd.grad(out, inputs, weights)]


# --- on a CPU, with torch's kernel for CPUs instead of that for CUDA -----------------------------


@pytest.mark.usefixtures("efficient_on_a_cpu")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("scale", [{}, {"scaling": 0.3}], ids=["usual scale", "scale of its own"])
@pytest.mark.parametrize("mask", [None, window(24, 7)], ids=["causal", "sliding window"])
def test_it_is_sdpa(groups: int, scale: dict[str, float], mask: Tensor | None) -> None:
    inputs = drawn(batch=3, groups=groups)
    ours = outcome(invariant_attention, inputs, mask, **scale)
    theirs = outcome(sdpa_attention_forward, inputs, mask, **scale)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("efficient_on_a_cpu")
@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_a_pack_computes_with_it_what_it_computes_without(tiny_model: Callable[..., Path], kind: str) -> None:
    pack = Pack(load_base(BaseSpec(model=str(tiny_model(kind)), quantization="none")), PackOptions())
    blocks = [
        Block.of([(list(range(2, 2 + n)),) * 2 for n in lengths], torch.device("cpu"))
        for lengths in ((9, 4), (17,))
    ]
    plain = pack.logits([None, None], blocks, "end_to_end")
    pack.attention = replace(pack.attention, device_type="cuda")
    for a, b in zip(pack.logits([None, None], blocks, "end_to_end"), plain, strict=True):
        torch.testing.assert_close(a, b)


# --- torch's own kernel, by its shapes and on a GPU ---------------------------------------------------


class Watching(TorchDispatchMode):
    """Whether deterministic algorithms were on when the backward kernel was called."""

    found: bool | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is BACKWARD:
            self.found = torch.are_deterministic_algorithms_enabled()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mask", [None, window(24, 7)], ids=["causal", "sliding window"])
def test_torch_takes_the_call(mask: Tensor | None) -> None:
    inputs = [x.detach().to("meta").requires_grad_() for x in drawn(batch=3)]
    with Watching() as watching:
        out, *grads = outcome(invariant_attention, inputs, None if mask is None else mask.to("meta"))
    assert out.shape == (3, 24, 4, 16)
    assert [grad.shape for grad in grads] == [x.shape for x in inputs]
    assert watching.found is True
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.gpu
@no_cuda
@pytest.mark.parametrize("masked", [False, True], ids=["causal", "sliding window"])
@pytest.mark.parametrize(("length", "size"), [(24, 16), (128, 64), (520, 128), (2048, 128)])
def test_a_sequence_has_the_same_bits_in_any_company(length: int, size: int, masked: bool) -> None:
    mask = window(length, length // 3).to("cuda") if masked else None
    among = drawn(batch=40, length=length, size=size, device="cuda")
    together = outcome(invariant_attention, among, mask)
    weights = torch.linspace(-1, 1, together[0].numel(), device="cuda", dtype=torch.bfloat16).view(
        together[0].shape
    )
    for first, count in ((0, 1), (7, 2), (39, 1)):
        alone = [x.detach()[first : first + count].clone().requires_grad_() for x in among]
        out, _ = invariant_attention(Layer(2), *alone, mask)
        grads = torch.autograd.grad(out, alone, weights[first : first + count])
        for a, b in zip([out, *grads], together, strict=True):
            assert torch.equal(a, b[first : first + count])


@pytest.mark.gpu
@no_cuda
@pytest.mark.parametrize("masked", [False, True], ids=["causal", "sliding window"])
def test_on_cuda_it_is_sdpa_too(masked: bool) -> None:
    mask = window(136, 40).to("cuda") if masked else None
    inputs = drawn(batch=3, length=136, size=64, device="cuda")
    exact = [x.detach().double().requires_grad_() for x in inputs]
    for a, b in zip(
        outcome(invariant_attention, inputs, mask), outcome(sdpa_attention_forward, exact, mask), strict=True
    ):
        assert float((a - b).norm() / b.norm()) < 1e-2
