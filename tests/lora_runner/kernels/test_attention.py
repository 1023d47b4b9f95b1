"""Attention of many sequences in one launch: beside eager attention in float64, and bits in any company."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lora_runner.kernels.attention_backward import attention_backward
from lora_runner.kernels.attention_forward import attention_forward
from lora_runner.kernels.attention_scores import AttentionOptions
from lora_runner.layout.sequence_tables import CachedKeys, SequenceShape, SequenceTables
from tests.lora_runner.kernels.interpreter import DEVICE
from tests.lora_runner.kernels.interpreter import DOT_DTYPES as DTYPES


@dataclass(frozen=True)
class Layer:
    """A layer's heads and options."""

    heads: int
    key_heads: int
    head_size: int
    window: int = 0
    soft_cap: float = 0.0

    @property
    def options(self) -> AttentionOptions:
        return AttentionOptions(self.head_size**-0.5, self.window, self.soft_cap)


LAYERS = {
    "grouped heads": Layer(4, 2, 16),
    "as many key heads": Layer(2, 2, 32),
    "7 heads of one key head": Layer(7, 1, 64),
    "more heads than a tile takes": Layer(20, 1, 16),
    "head size 80": Layer(2, 1, 80),
    "window": Layer(4, 2, 16, window=9),
    "window beyond a tile": Layer(2, 1, 16, window=70),
    "window of one token": Layer(2, 1, 16, window=1),
    "soft cap": Layer(4, 2, 16, soft_cap=2.0),
    "soft cap and window": Layer(4, 2, 16, window=40, soft_cap=2.0),
}
NAMES = ("out", "dq", "dk", "dv")
LENGTHS = ((5, 1, 66), (80, 64, 2))


def drawn(layer: Layer, num_rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Queries, keys and values side by side (T, H + 2 G, D), as sibling layers' outputs are; a gradient."""
    joint = torch.randn(num_rows, layer.heads + 2 * layer.key_heads, layer.head_size, device=DEVICE)
    grad = torch.randn(num_rows, layer.heads, layer.head_size, device=DEVICE)
    return joint.to(dtype), grad.to(dtype)


def split(layer: Layer, joint: Tensor) -> tuple[Tensor, ...]:
    return joint.split((layer.heads, layer.key_heads, layer.key_heads), dim=1)


def tables_of(lengths: tuple[int, ...], num_rows: int = 0, num_sequences: int = 0) -> SequenceTables:
    shape = SequenceShape(num_rows or sum(lengths), num_sequences or len(lengths))
    return SequenceTables.of(shape, lengths, DEVICE)


def fused(layer: Layer, joint: Tensor, grad: Tensor, tables: SequenceTables) -> list[Tensor]:
    """The output and the gradients of query, key and value."""
    query, key, value = split(layer, joint)
    out, log_sums = attention_forward(query, key, value, tables, layer.options)
    grads = attention_backward(grad, query, key, value, out, log_sums, tables, layer.options)
    return [out, *grads]


def eager(
    layer: Layer, joint: Tensor, grad: Tensor, lengths: tuple[int, ...], dtype: torch.dtype
) -> list[Tensor]:
    """The same by plain operations in `dtype`, weights in at least float32, one sequence after another."""
    leaves = [x.to(dtype).requires_grad_() for x in split(layer, joint)]
    outputs, start = [], 0
    for length in lengths:
        query, key, value = (x[start : start + length].transpose(0, 1) for x in leaves)
        outputs.append(eager_sequence(layer, query, key, value))
        start += length
    out = torch.cat(outputs)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad[:start].to(dtype))]


def eager_sequence(layer: Layer, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(H, q, D), (G, k, D) -> (q, H, D); the queries are the last of the keys' tokens."""
    group = layer.heads // layer.key_heads
    key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)
    scores = query @ key.transpose(1, 2) * layer.head_size**-0.5
    if layer.soft_cap:
        scores = layer.soft_cap * torch.tanh(scores / layer.soft_cap)
    places = torch.arange(key.shape[1], device=DEVICE)
    queries = places[-query.shape[1] :, None]
    seen = places <= queries
    if layer.window:
        seen &= places > queries - layer.window
    scores = scores.masked_fill(~seen, float("-inf"))
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    return (weights @ value).transpose(0, 1)


def assert_as_exact_as_eager(
    layer: Layer, joint: Tensor, grad: Tensor, lengths: tuple[int, ...], tables: SequenceTables
) -> None:
    """Errors against float64 are at most twice those of eager attention in the same dtype, but for rounding.

    Rounding is 4 units of the last place for sums in another order. Where a row sees one key, eager
    gradients of scores are exactly 0; the kernels' are the difference of two sums, one of them from the
    output as rounded to the dtype, which reaches dq and dk by way of the other factor.
    """
    dtype = joint.dtype
    found = fused(layer, joint, grad, tables)
    plain = eager(layer, joint, grad, lengths, dtype)
    exact = eager(layer, joint, grad, lengths, torch.float64)
    epsilon = torch.finfo(dtype).eps
    query, key, _ = (x.double().abs().max() for x in split(layer, joint))
    of_scores = epsilon * (grad[: len(exact[0])].double() * exact[0]).abs().sum(-1).max()
    through_scores = of_scores * layer.head_size**-0.5
    group = layer.heads // layer.key_heads
    rest = (0.0, key * through_scores, query * through_scores * group, 0.0)
    for name, one, other, right, small in zip(NAMES, found, plain, exact, rest, strict=True):
        error, allowed = ((x[: len(right)].double() - right).abs().max() for x in (one, other))
        rounding = 4 * epsilon * right.abs().max() + small
        assert error <= 2 * allowed + rounding, f"{name}: {error:.2e} beside {allowed:.2e}"


@pytest.mark.parametrize("name", LAYERS)
def test_output_and_gradients_are_those_of_eager_attention(name: str, seed: int) -> None:
    layer = LAYERS[name]
    dtype, lengths = DTYPES[seed % len(DTYPES)], LENGTHS[seed // 2 % len(LENGTHS)]
    print(dtype, lengths)
    joint, grad = drawn(layer, sum(lengths), dtype)
    assert_as_exact_as_eager(layer, joint, grad, lengths, tables_of(lengths))


@pytest.mark.parametrize("head_size", [64, 96, 128, 256])
def test_head_sizes_of_models(head_size: int, seed: int) -> None:
    layer, dtype, lengths = Layer(2, 1, head_size), DTYPES[0], (37, 40)
    joint, grad = drawn(layer, sum(lengths), dtype)
    assert_as_exact_as_eager(layer, joint, grad, lengths, tables_of(lengths))


def test_a_long_sequence(seed: int) -> None:
    length = 4500 if DEVICE.type == "cuda" else 700
    layer, dtype = Layer(1, 1, 16), DTYPES[0]
    joint, grad = drawn(layer, length, dtype)
    assert_as_exact_as_eager(layer, joint, grad, (length,), tables_of((length,)))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("grouped heads", DTYPES[-1]), ("window", DTYPES[-1]), ("soft cap and window", DTYPES[0])],
)
def test_a_sequence_has_the_same_bits_alone_and_among_others(
    name: str, dtype: torch.dtype, seed: int
) -> None:
    """Whatever their lengths, also among NaN, at any offset, and in tables with room for more."""
    layer = LAYERS[name]
    lengths = tuple(torch.randint(low, high, ()).item() for low, high in ((60, 80), (1, 70), (1, 20)))
    total = sum(lengths)
    joint, grad = drawn(layer, total, dtype)
    alone = fused(layer, joint[: lengths[0]], grad[: lengths[0]], tables_of(lengths[:1]))

    order = (lengths[1], lengths[0], lengths[2])
    first, stop = lengths[1], lengths[0] + lengths[1]
    for neighbours in (None, float("nan"), float("inf")):
        x, g = (torch.zeros(total + 20, *one.shape[1:], dtype=dtype, device=DEVICE) for one in (joint, grad))
        for source, target in ((joint, x), (grad, g)):
            target[:total] = source
            target[first:stop] = source[: lengths[0]]
            if neighbours is not None:
                target[:first] = target[stop:] = neighbours
        together = fused(layer, x, g, tables_of(order, total + 20, 9))
        for what, one, other in zip(NAMES, alone, together, strict=True):
            assert torch.equal(one, other[first:stop]), (what, lengths, neighbours)


def test_tables_are_refreshed_in_place(seed: int) -> None:
    """A pass of the same shape finds its own sequences in the tables of the one before."""
    layer, dtype = LAYERS["grouped heads"], torch.float32
    joint, grad = drawn(layer, 90, dtype)
    tables = tables_of((60, 20, 3), 90, 5)
    address = tables.buffer.data_ptr()
    tables.refresh((7, 80))
    assert tables.buffer.data_ptr() == address
    found = fused(layer, joint, grad, tables)
    for one, other in zip(found, fused(layer, joint, grad, tables_of((7, 80), 90, 3)), strict=True):
        assert torch.equal(one[:87], other[:87])


def test_tables_that_are_too_small_say_so() -> None:
    tables = tables_of((5,), 8, 2)
    with pytest.raises(ValueError, match="a pass of 8 rows cannot hold 9"):
        tables.refresh((9,))
    with pytest.raises(ValueError, match="a pass of 2 sequences cannot hold 3"):
        tables.refresh((1, 1))


@pytest.mark.parametrize("name", ["grouped heads", "soft cap and window"])
def test_cached_keys(name: str, seed: int) -> None:
    """Queries are the last tokens of sequences whose keys lie in slots; the rest of a slot is never read."""
    layer, dtype, capacity = LAYERS[name], torch.float32, 130
    lengths, slots, new = (100, 3, 64), (2, 0, 3), (1, 1, 1)
    kept = [drawn(layer, length, dtype)[0] for length in lengths]
    key, value = (
        torch.full((4 * capacity, layer.key_heads, layer.head_size), float("nan"), device=DEVICE)
        for _ in range(2)
    )
    for joint, slot in zip(kept, slots, strict=True):
        _, k, v = split(layer, joint)
        key[slot * capacity :][: len(joint)], value[slot * capacity :][: len(joint)] = k, v
    query = torch.cat([split(layer, joint)[0][-1:] for joint in kept] + [torch.zeros_like(kept[0][:2, :4])])
    keys = CachedKeys([slot * capacity for slot in slots], lengths)
    tables = SequenceTables.of(SequenceShape(5, 5), new, DEVICE, keys)
    out, _ = attention_forward(query, key, value, tables, layer.options)
    for row, joint in enumerate(kept):
        q, k, v = (x.double().transpose(0, 1) for x in split(layer, joint))
        exact = eager_sequence(layer, q[:, -1:], k, v)[0]
        # fp32: rounding of sums over at most 100 keys of about unit size.
        assert (out[row].double() - exact).abs().max() <= 100 * torch.finfo(dtype).eps
    assert torch.equal(out[3:], torch.zeros_like(out[3:]))  # padding rows see no keys
