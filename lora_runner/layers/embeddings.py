"""Embedding and output layer for several seats at once: frozen, trained in full, or only a few rows.

Of a layer trained in full (peft's `modules_to_save`) each seat has its own copy (V, h). Where only some
tokens are trained (peft's `trainable_token_indices`), a seat has their rows (n, h) and reads all others from
the base; no tensor of the matrix's size is made per seat. With tied embeddings both layers use what the seat
keeps under the input embeddings' name.

Shapes: T rows of an activation, t rows of a rank group, G blocks, V vocabulary, h hidden, n trained tokens, u
distinct ids of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lora_runner.layers.adapter_bank import SeatWeights
from lora_runner.layers.block_matmul import matmul_by_block, matmul_into, matmul_shared, outer_by_block
from lora_runner.layers.linear import PackContext, PackedModule, RowOwners


class PackedSavedModule(PackedModule):
    """A layer of which each seat may train its own copy, or its own rows for some tokens."""

    tied_to: str | None = None
    """Name whose trained copy this module uses, for models that tie embeddings and output layer."""
    token_indices: tuple[int, ...] = ()
    """Sorted ids of the only tokens whose rows are trained; empty: all rows, if any."""
    tokens: Tensor
    """`token_indices` (n,) on the weight's device; absent where that is empty."""

    def train_only(self, token_indices: Sequence[int]) -> None:
        """Train only the rows of these ids, which must be sorted."""
        self.token_indices = tuple(token_indices)
        # Made once, so that no step waits for it.
        self.tokens = torch.tensor(self.token_indices, device=self.weight.device)

    @property
    def owner(self) -> str:
        """The name under which seats keep the trained copy or rows."""
        return self.tied_to or self.name

    @property
    def parameter_name(self) -> str:
        """The trained matrix's name, as in peft."""
        return f"{self.owner}.{'token_adapter.trainable_tokens_delta' if self.token_indices else 'weight'}"

    @property
    def trained_shape(self) -> tuple[int, int]:
        """(V, h), or (n, h)."""
        vocabulary, hidden = self.weight.shape
        return len(self.token_indices) or vocabulary, hidden

    def trained_start(self) -> Tensor:
        """The base's values of what is trained, `trained_shape`."""
        weight = self.weight.detach()
        return weight.index_select(0, self.tokens) if self.token_indices else weight


class PackedEmbedding(PackedSavedModule):
    """The input embeddings."""

    def __init__(self, base: nn.Embedding, name: str, context: PackContext) -> None:
        super().__init__(base, name, context)
        # torch keeps the gradient of this row at zero; `_TakeRows` does it here.
        self.padding_idx, base.padding_idx = base.padding_idx, None

    def forward(self, ids: Tensor) -> Tensor:
        context = self._context
        assert context.rows is not None
        take = _TakeTokenRows if self.token_indices else _TakeRows
        flat, start, outputs = ids.reshape(-1), 0, []
        for index, (seat, size) in enumerate(zip(context.rows.seats, context.rows.blocks.sizes, strict=True)):
            if seat is None or self.owner not in seat.saved:
                outputs.append(self.base(flat[start : start + size]))
            else:
                # Only the rows that occur: neither forward nor backward touches the whole matrix.
                taken = take.apply(seat, self, context.distinct_ids[index], context.anchor)  # type: ignore[no-untyped-call]
                out = functional_call(self.base, {"weight": taken}, (context.distinct_indices[index],))
                outputs.append(out.to(self.weight.dtype))
            start += size
        out = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
        return out.view(*ids.shape, out.shape[-1])


class _TakeRows(torch.autograd.Function):
    """Rows (u, h) of a seat's copy. The ids are distinct, so their gradients add up in any order."""

    @staticmethod
    def forward(
        ctx: Any, seat: SeatWeights, module: PackedEmbedding, distinct: Tensor, anchor: Tensor | None
    ) -> Tensor:
        ctx.gradient, ctx.distinct = seat.saved_gradients[module.owner], distinct
        ctx.padding_idx = module.padding_idx
        return seat.saved[module.owner].index_select(0, distinct)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        grad = grads[0]
        if ctx.padding_idx is not None:
            grad = grad.masked_fill((ctx.distinct == ctx.padding_idx)[:, None], 0.0)
        ctx.gradient.index_add_(0, ctx.distinct, grad)
        return None, None, None, None


class _TakeTokenRows(torch.autograd.Function):
    """Rows (u, h) of the base, in its dtype, with the seat's own rows for the trained tokens.

    Which of the tokens occur is computed on the device, in tensors of known shapes: both lists of ids are
    sorted and distinct, so each is searched in the other.
    """

    @staticmethod
    def forward(
        ctx: Any, seat: SeatWeights, module: PackedEmbedding, distinct: Tensor, anchor: Tensor | None
    ) -> Tensor:
        ctx.gradient, ctx.distinct = seat.saved_gradients[module.owner], distinct
        ctx.tokens, ctx.padding_idx = module.tokens, module.padding_idx
        frozen = module.weight.detach().index_select(0, distinct)
        row = torch.searchsorted(module.tokens, distinct).clamp_(max=len(module.tokens) - 1)
        is_trained = module.tokens.index_select(0, row) == distinct
        own = seat.saved[module.owner].index_select(0, row).to(frozen.dtype)
        return torch.where(is_trained[:, None], own, frozen)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        index = torch.searchsorted(ctx.distinct, ctx.tokens).clamp_(max=len(ctx.distinct) - 1)
        is_frozen = ctx.distinct.index_select(0, index) != ctx.tokens  # does not occur in this block
        if ctx.padding_idx is not None:
            is_frozen |= ctx.tokens == ctx.padding_idx
        ctx.gradient += grads[0].index_select(0, index).masked_fill_(is_frozen[:, None], 0.0)
        return None, None, None, None


class PackedHead(PackedSavedModule):
    """The output layer, computed block by block as well."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        rows = self._context.rows_of(flat, self.name, trained=True)
        out: Tensor = _PackedHeadFunction.apply(flat, self._context.anchor, self, rows)  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], out.shape[-1])

    def copies(self, rows: RowOwners) -> list[Tensor | None]:
        """Each block's trained copy (V, h); None where it uses the base's."""
        if self.token_indices:
            return [None] * len(rows.seats)
        return [None if seat is None else seat.saved.get(self.owner) for seat in rows.seats]

    def token_rows(self, seats: Sequence[SeatWeights], dtype: torch.dtype) -> Tensor:
        """The seats' rows of the trained tokens (G, n', h), in the dtype of the matmul."""
        rows = torch.stack([seat.saved[self.owner] for seat in seats]).to(dtype)
        return nn.functional.pad(rows, (0, 0, 0, self.num_padding))

    @property
    def num_padding(self) -> int:
        """Rows of zeros up to n', a multiple of 8 as ranks are: grouped matmuls need 16-byte strides."""
        return -len(self.token_indices) % 8


class _PackedHeadFunction(torch.autograd.Function):
    """(T, h) -> (T, V): the base's weight for all blocks at once, or every seat's own copy.

    Where only some tokens are trained, their columns are computed again with each seat's own rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor | None, module: PackedHead, rows: RowOwners) -> Tensor:
        copies = module.copies(rows)
        ctx.module, ctx.rows = module, rows
        ctx.shared = all(copy is None for copy in copies)
        ctx.save_for_backward(None if ctx.shared and not module.token_indices else x)
        if ctx.shared:
            out = matmul_shared(x, module.weight.detach().t(), rows.blocks)
        else:
            out = x.new_empty(x.shape[0], module.weight.shape[0])
            for copy, part, into in zip(
                copies, x.split(rows.blocks.sizes), out.split(rows.blocks.sizes), strict=True
            ):
                # The master weight is fp32; the matmul runs in the base's dtype, as with the frozen weight.
                own = (module.weight.detach() if copy is None else copy).to(x.dtype)
                matmul_into(into, part, own.t())
        for group in rows.rank_groups if module.token_indices else ():
            own = matmul_by_block(
                x[group.start : group.stop],
                module.token_rows(group.seats, x.dtype).transpose(1, 2),
                group.blocks,
            )
            out[group.start : group.stop].index_copy_(1, module.tokens, own[:, : len(module.tokens)])
        return out if module.bias is None else out.add_(module.bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x,), module, rows = grads, ctx.saved_tensors, ctx.module, ctx.rows
        if ctx.shared:
            dx = matmul_shared(grad, module.weight.detach(), rows.blocks)
            if module.token_indices:
                _add_token_gradients(dx, grad, x, module, rows)
            return dx, None, None, None
        dx = torch.empty_like(x)
        sizes = rows.blocks.sizes
        for seat, copy, part, here, into in zip(
            rows.seats, module.copies(rows), x.split(sizes), grad.split(sizes), dx.split(sizes), strict=True
        ):
            matmul_into(into, here, (module.weight.detach() if copy is None else copy).to(grad.dtype))
            if copy is not None:
                gradient = seat.saved_gradients[module.owner]
                if gradient.dtype == grad.dtype:
                    gradient.addmm_(here.t(), part)
                else:
                    gradient += here.t() @ part
        return dx, None, None, None


def _add_token_gradients(dx: Tensor, grad: Tensor, x: Tensor, module: PackedHead, rows: RowOwners) -> None:
    """Correct `dx` (T, h) from the base's rows to the seats' own, and add the gradient of those."""
    pad, num_tokens = nn.functional.pad, len(module.tokens)
    base = pad(module.trained_start().to(grad.dtype), (0, 0, 0, module.num_padding))
    for group in rows.rank_groups:
        here = pad(
            grad[group.start : group.stop].index_select(1, module.tokens), (0, module.num_padding)
        )  # (t, n')
        # The difference, because removing these columns from `grad` beforehand would copy all of it.
        difference = module.token_rows(group.seats, grad.dtype) - base  # (G, n', h)
        dx[group.start : group.stop].add_(matmul_by_block(here, difference, group.blocks))
        drows = outer_by_block(here, x[group.start : group.stop], group.blocks)[:, :num_tokens]  # (G, n, h)
        torch._foreach_add_(
            [seat.saved_gradients[module.owner] for seat in group.seats], [*drows.to(torch.float32)]
        )
