"""Embedding and output layer for several seats at once: frozen, trained in full, or a few rows of them.

Of a layer trained in full (peft's `modules_to_save`) each seat has its own copy (V, h). Where only some
tokens are trained (peft's `trainable_token_indices`), a seat has their rows (n, h) and reads all others from
the base: nothing of the matrix's size is made for a seat, in either direction. With tied embeddings both
layers use what the seat keeps under the input embeddings' name.

Shapes: T rows of an activation, t of one rank's blocks, G blocks, V vocabulary, h hidden, n trained tokens, u
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
    """A layer of which each seat may train its own copy, or its own rows of some tokens."""

    tied_to: str | None = None
    """Name whose trained copy this module uses, for models that tie embeddings and output layer."""
    token_indices: tuple[int, ...] = ()
    """Ids, rising, of the tokens whose rows alone are trained; empty: all rows, if any."""

    def train_only(self, token_indices: Sequence[int]) -> None:
        """Leave all rows but those of these ids to the base; the ids must be rising."""
        self.token_indices = tuple(token_indices)
        # Made once: no step has to wait for them.
        self._tokens = torch.tensor(self.token_indices, device=self.weight.device)

    @property
    def tokens(self) -> Tensor:
        """`token_indices` (n,) on the weight's device."""
        return self._tokens

    @property
    def owner(self) -> str:
        """Name under which seats keep the trained copy or rows."""
        return self.tied_to or self.name

    @property
    def parameter_name(self) -> str:
        """What the trained matrix is called, as in peft."""
        return f"{self.owner}.{'token_adapter.trainable_tokens_delta' if self.token_indices else 'weight'}"

    @property
    def trained_shape(self) -> tuple[int, int]:
        """(V, h), or (n, h)."""
        vocabulary, hidden = self.weight.shape
        return len(self.token_indices) or vocabulary, hidden

    def trained_start(self) -> Tensor:
        """The base's own values of what is trained, `trained_shape`."""
        weight = self.weight.detach()
        return weight.index_select(0, self.tokens) if self.token_indices else weight


class PackedEmbedding(PackedSavedModule):
    """The input embeddings."""

    def __init__(self, base: nn.Embedding, name: str, context: PackContext) -> None:
        super().__init__(base, name, context)
        # torch keeps the gradient of this row at zero; here it is done where rows are taken.
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
                taken = take.apply(seat, self, context.distinct[index], context.anchor)  # type: ignore[no-untyped-call]
                out = functional_call(self.base, {"weight": taken}, (context.places[index],))
                outputs.append(out.to(self.weight.dtype))
            start += size
        out = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
        return out.view(*ids.shape, out.shape[-1])


class _TakeRows(torch.autograd.Function):
    """Rows (u, h) of a seat's copy; the gradient joins theirs, in no order: the ids are distinct."""

    @staticmethod
    def forward(
        ctx: Any, seat: SeatWeights, module: PackedEmbedding, distinct: Tensor, anchor: Tensor | None
    ) -> Tensor:
        ctx.gradient, ctx.distinct = seat.saved_gradients[module.owner], distinct
        ctx.never = module.padding_idx
        return seat.saved[module.owner].index_select(0, distinct)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        grad = grads[0]
        if ctx.never is not None:
            grad = grad.masked_fill((ctx.distinct == ctx.never)[:, None], 0.0)
        ctx.gradient.index_add_(0, ctx.distinct, grad)
        return None, None, None, None


class _TakeTokenRows(torch.autograd.Function):
    """Rows (u, h) of the base, in its dtype, with the seat's own in the places of the trained tokens.

    Which of the tokens occur is found out on the device, in tensors of shapes known beforehand: both lists of
    ids are sorted and without repetition, so each looks its entries up in the other.
    """

    @staticmethod
    def forward(
        ctx: Any, seat: SeatWeights, module: PackedEmbedding, distinct: Tensor, anchor: Tensor | None
    ) -> Tensor:
        ctx.gradient, ctx.distinct = seat.saved_gradients[module.owner], distinct
        ctx.tokens, ctx.never = module.tokens, module.padding_idx
        frozen = module.weight.detach().index_select(0, distinct)
        row = torch.searchsorted(module.tokens, distinct).clamp_(max=len(module.tokens) - 1)
        is_trained = module.tokens.index_select(0, row) == distinct
        own = seat.saved[module.owner].index_select(0, row).to(frozen.dtype)
        return torch.where(is_trained[:, None], own, frozen)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        place = torch.searchsorted(ctx.distinct, ctx.tokens).clamp_(max=len(ctx.distinct) - 1)
        is_frozen = ctx.distinct.index_select(0, place) != ctx.tokens  # it does not occur here
        if ctx.never is not None:
            is_frozen |= ctx.tokens == ctx.never
        ctx.gradient += grads[0].index_select(0, place).masked_fill_(is_frozen[:, None], 0.0)
        return None, None, None, None


class PackedHead(PackedSavedModule):
    """The output layer; it too computes block by block."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        rows = self._context.rows_of(flat, self.name, trained=True)
        out: Tensor = _PackedHeadFunction.apply(flat, self._context.anchor, self, rows)  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], out.shape[-1])

    def copies(self, rows: RowOwners) -> list[Tensor | None]:
        """Each block's trained copy (V, h), None where it uses the base's."""
        if self.token_indices:
            return [None] * len(rows.seats)
        return [None if seat is None else seat.saved.get(self.owner) for seat in rows.seats]

    def token_rows(self, seats: Sequence[SeatWeights], dtype: torch.dtype) -> Tensor:
        """The seats' rows of the trained tokens (G, n', h), in the dtype of the product."""
        rows = torch.stack([seat.saved[self.owner] for seat in seats]).to(dtype)
        return nn.functional.pad(rows, (0, 0, 0, self.num_padding))

    @property
    def num_padding(self) -> int:
        """Rows of zeros up to n', a multiple of 8 as ranks are: grouped products want 16-byte steps."""
        return -len(self.token_indices) % 8


class _PackedHeadFunction(torch.autograd.Function):
    """(T, h) -> (T, V): the base's weight for all blocks at once, or every seat's own copy.

    Columns of tokens that are trained alone are computed again, with each seat's own rows.
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
                # The master is fp32; the product runs in the base's dtype, as the frozen weight would.
                own = (module.weight.detach() if copy is None else copy).to(x.dtype)
                matmul_into(into, part, own.t())
        for c in rows.classes if module.token_indices else ():
            own = matmul_by_block(
                x[c.start : c.stop], module.token_rows(c.seats, x.dtype).transpose(1, 2), c.blocks
            )
            out[c.start : c.stop].index_copy_(1, module.tokens, own[:, : len(module.tokens)])
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
    for c in rows.classes:
        here = pad(grad[c.start : c.stop].index_select(1, module.tokens), (0, module.num_padding))  # (t, n')
        # The difference, because taking these columns out of `grad` beforehand would copy all of it.
        moved = module.token_rows(c.seats, grad.dtype) - base  # (G, n', h)
        dx[c.start : c.stop].add_(matmul_by_block(here, moved, c.blocks))
        drows = outer_by_block(here, x[c.start : c.stop], c.blocks)[:, :num_tokens]  # (G, n, h)
        torch._foreach_add_(
            [seat.saved_gradients[module.owner] for seat in c.seats], [*drows.to(torch.float32)]
        )
