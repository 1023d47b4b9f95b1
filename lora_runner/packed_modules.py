"""Modules of the base model that compute for several seats at once.

The base's modules are replaced in place: a targeted linear layer by `PackedLinear`, an embedding or output
layer by `PackedSaved`. Both read from the shared `PackContext` which rows of their input belong to which
seat. Every product is computed block by block on one shared weight, so a seat's numbers do not depend on its
neighbours.

Shapes: T tokens of the pack, t of one block, r rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lora_runner.errors import ModelError
from lora_runner.layout import Layout, Span

_MASK64 = (1 << 64) - 1


class SeatWeights(Protocol):
    """What a packed module asks of the seat that owns a block."""

    lora: dict[str, tuple[Tensor, Tensor]]  # module name -> A (r, in), B (out, r)
    saved: dict[str, Tensor]  # module name -> full weight
    scaling: float
    dropout: float
    seed: int
    micro_step: int


@dataclass
class PackContext:
    """Who owns which rows in the forward pass that is under way; None for the untouched base."""

    layout: Layout | None = None
    seats: Sequence[SeatWeights | None] = field(default_factory=tuple)
    training: bool = False

    def spans(self, num_rows: int, name: str, *, trained: bool = True) -> tuple[Span, ...]:
        """The blocks' rows in an activation with `num_rows` rows: all tokens, or only the predicting ones.

        A frozen layer may see any other selection of rows, as one block that belongs to nobody.
        """
        assert self.layout is not None
        if num_rows == self.layout.num_tokens:
            return self.layout.token_spans
        if num_rows == self.layout.target_spans[-1].stop:
            return self.layout.target_spans
        if not trained:
            return (Span(0, 0, num_rows),)
        raise ModelError(
            f"module {name!r} was called on {num_rows} rows of {self.layout.num_tokens} tokens: a layer that "
            "sees a selection of tokens (a routed expert) cannot be trained in a pack; leave it out of "
            "target_modules"
        )


class FrozenLinear(torch.autograd.Function):
    """Products of several blocks with one frozen weight that is dequantised once per direction."""

    @staticmethod
    def forward(ctx: Any, module: PackedLinear, *blocks: Tensor) -> tuple[Tensor, ...]:
        ctx.module = module
        weight = module.base_weight(blocks[0].dtype)
        return tuple(F.linear(x, weight, module.base_bias(x.dtype)) for x in blocks)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight = ctx.module.base_weight(grads[0].dtype)
        return (None, *(grad @ weight for grad in grads))


class PackedLinear(nn.Module):
    """A frozen linear layer, 4-bit or not, with one LoRA branch per seat; without one when it is no target.

    Source: LoRA (Hu et al., 2021), in the order of operations of peft's `lora.Linear4bit`.
    """

    def __init__(
        self, base: nn.Linear, name: str, index: int | None, context: PackContext, *, resident: bool
    ) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.index = index
        """Place among the trained layers, which keys its dropout; None for a layer that only computes."""
        self.in_features, self.out_features = base.in_features, base.out_features
        self._context = context
        self._resident: Tensor | None = None
        self._keep_resident = resident

    @property
    def weight(self) -> Tensor:
        """The base's stored weight; models read its dtype and device."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def base_weight(self, dtype: torch.dtype) -> Tensor:
        """The frozen weight (out, in) in `dtype`: the resident copy, or dequantised now."""
        if self._resident is not None and self._resident.dtype == dtype:
            return self._resident
        stored = self.base.weight
        state = getattr(stored, "quant_state", None)
        if state is None:
            weight = stored.detach()
        else:
            from bitsandbytes.functional import dequantize_4bit

            weight = dequantize_4bit(stored.data, state)
        weight = weight.to(dtype)
        if self._keep_resident:
            self._resident = weight
        return weight

    def base_bias(self, dtype: torch.dtype) -> Tensor | None:
        return None if self.base.bias is None else self.base.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (T, in)
        spans = self._context.spans(rows.shape[0], self.name, trained=self.index is not None)
        # One split, not a slice per block: a slice's backward fills a zero tensor of the whole pack.
        blocks = rows.split([span.stop - span.start for span in spans])
        outputs = list(FrozenLinear.apply(self, *blocks))  # type: ignore[no-untyped-call]
        for index, span in enumerate(spans):
            seat = self._context.seats[span.block]
            if self.index is not None and seat is not None:
                outputs[index] = outputs[index] + self._lora(seat, blocks[index], self.index).to(x.dtype)
        return torch.cat(outputs).view(*x.shape[:-1], self.out_features)

    def _lora(self, seat: SeatWeights, x: Tensor, key: int) -> Tensor:
        a, b = seat.lora[self.name]
        x = x.to(a.dtype)
        if self._context.training and seat.dropout > 0:
            x = x * dropout_mask(x, seat.dropout, seat.seed, seat.micro_step, key)
        return F.linear(F.linear(x, a), b) * seat.scaling  # (t, out)


class PackedSaved(nn.Module):
    """An embedding or output layer of which each seat may train its own full copy (`modules_to_save`)."""

    def __init__(self, base: nn.Module, name: str, context: PackContext) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.tied_to: str | None = None
        """Name whose trained copy this module uses, for models that tie embeddings and output layer."""
        self._context = context

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        return weight

    def forward(self, x: Tensor) -> Tensor:
        is_embedding = not x.is_floating_point()
        rows = x.reshape(-1) if is_embedding else x.reshape(-1, x.shape[-1])
        spans = self._context.spans(rows.shape[0], self.name)
        outputs = []
        for span, block in zip(spans, rows.split([span.stop - span.start for span in spans]), strict=True):
            seat = self._context.seats[span.block]
            copy = None if seat is None else seat.saved.get(self.tied_to or self.name)
            if copy is None:
                outputs.append(self.base(block))
                continue
            # The master is fp32; the product runs in the base's dtype, as the frozen weight would.
            weight = copy if is_embedding else copy.to(x.dtype)
            outputs.append(functional_call(self.base, {"weight": weight}, (block,)).to(self.weight.dtype))
        out = torch.cat(outputs)
        return out.view(*(x.shape if is_embedding else x.shape[:-1]), out.shape[-1])


def dropout_mask(x: Tensor, p: float, *key: int) -> Tensor:
    """Inverted-dropout factors shaped like `x`, a function of (seed, micro-batch, layer) alone.

    Because nothing else enters, a trial draws the same masks alone, in any pack, after a resume, and when
    gradient checkpointing computes the forward pass a second time.
    """
    generator = torch.Generator(device=x.device)
    generator.manual_seed(mix(*key))
    keep = torch.rand(x.shape, generator=generator, device=x.device, dtype=torch.float32) >= p
    return keep.to(x.dtype) / (1 - p)


def mix(*values: int) -> int:
    """Combine integers into one well-spread 63-bit seed (splitmix64's finaliser over each value)."""
    state = 0
    for value in values:
        state = (state + (value & _MASK64) + 0x9E3779B97F4A7C15) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return state & (_MASK64 >> 1)
