"""Trained input embeddings on the fused path: all seats in one launch each way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from lora_runner.fused.replaced import FusedForward, is_equal, random_input
from lora_runner.kernels.embedding_rows import add_embedding_gradients, embedding_rows
from lora_runner.layers.adapter_bank import SeatWeights
from lora_runner.layers.embeddings import PackedEmbedding
from lora_runner.layers.linear import PackContext
from lora_runner.layout.embedding_tables import NONE, EmbeddingTables, OwnRows
from lora_runner.layout.pack_layout import Layout

NUM_PROBES = 8
"""Rows on which an embedding module is tried."""


@dataclass(frozen=True)
class EmbeddingPass:
    """Which rows of a pass read which embeddings, and the flat buffers in which seats keep theirs."""

    tables: EmbeddingTables
    parameters: Tensor
    gradients: Tensor


class FusedEmbedding(FusedForward):
    """The forward of the input embeddings. ValueError, in words, for a module with no fused form."""

    def __init__(self, module: PackedEmbedding, context: PackContext) -> None:
        self._module, self._context = module, context
        self._own: Callable[[Tensor], Tensor] = module.forward
        self._scale = _scale_of(module.base)
        module.forward = self  # type: ignore[method-assign]

    def __call__(self, ids: Tensor) -> Tensor:
        fused: EmbeddingPass | None = getattr(self._context.fused, "embeddings", None)
        if fused is None:
            return self._own(ids)
        weight = self._module.weight.detach()
        out: Tensor = _EmbeddingFunction.apply(  # type: ignore[no-untyped-call]
            self._context.anchor, weight, ids.flatten(), fused, self._scale
        )
        return out.view(*ids.shape, -1)

    def write(self, tables: EmbeddingTables, seats: Sequence[SeatWeights | None], layout: Layout) -> None:
        """Write the tables of a pass over the layout's blocks, one per seat, end to end."""
        module, places = self._module, list[np.ndarray]()
        for seat, block in zip(seats, layout.blocks, strict=True):
            own = None if seat is None else seat.saved.get(module.owner)
            if own is None:
                places.append(np.full(block.num_tokens, NONE))
            else:
                rows = OwnRows(int(own.storage_offset()), module.token_indices)
                places.append(rows.places(block.host_ids, module.weight.shape[1]))
        ids = np.concatenate([block.host_ids for block in layout.blocks])
        padding = NONE if module.padding_idx is None else module.padding_idx
        tables.refresh(np.concatenate(places), ids != padding)


class _EmbeddingFunction(torch.autograd.Function):
    """ids (T,) -> (T, h); adds the gradients of the seats' rows to the flat buffer."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor | None, weight: Tensor, ids: Tensor, fused: EmbeddingPass, scale: float
    ) -> Tensor:
        ctx.fused, ctx.scale = fused, scale
        return embedding_rows(fused.parameters, weight, ids, fused.tables, scale)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        add_embedding_gradients(ctx.fused.gradients, grad, ctx.fused.tables, ctx.scale)
        return None, None, None, None, None


def _scale_of(base: nn.Module) -> float:
    """The factor that an embedding module applies to its rows (Gemma's: the root of their width)."""
    weight: Tensor = base.weight  # type: ignore[assignment]
    if weight.is_meta:
        return 1.0
    shape, ids = (NUM_PROBES, weight.shape[1]), torch.arange(NUM_PROBES, device=weight.device)
    drawn = random_input(shape, weight.dtype, weight.device)
    with torch.no_grad():
        ones = functional_call(base, {"weight": torch.ones_like(drawn)}, (ids,))
        scaled = functional_call(base, {"weight": drawn}, (ids,))
    scale = float(ones.flatten()[0])
    if not is_equal(scaled, drawn * scale):
        raise ValueError("embeddings are more than the scaled rows of a matrix")
    return scale
