"""Modules of the base model that compute for several seats at once.

The base's modules are replaced in place: every linear layer by `PackedLinear`, embedding and output layer
by those of `packed_embeddings.py`. They read from the shared `PackContext` which rows of their input
belong to which seat. Products are grouped by block (`products.py`): nothing depends on a neighbour.
Gradients go straight into the seats' flat buffers; autograd only carries those of activations.

Shapes: T rows of an activation, t of one rank's blocks, G blocks, r rank (as stored).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from lora_runner.base.quantization import dequantized_weight
from lora_runner.errors import ModelError
from lora_runner.layers.adapter_bank import AdapterBank, SeatWeights
from lora_runner.layers.block_matmul import Blocks, matmul_by_block, matmul_shared, outer_by_block
from lora_runner.layers.dropout import dropout_factors, dropout_key
from lora_runner.layout.device_copies import DeviceCopies


class RankGroup:
    """Consecutive blocks whose adapters have one shape, so that one product serves them all."""

    def __init__(self, start: int, owned: Sequence[tuple[SeatWeights, int]]) -> None:
        self.seats = tuple(seat for seat, _ in owned)
        self.blocks = Blocks([size for _, size in owned])
        self.start, self.stop = start, start + sum(self.blocks.sizes)
        factors = [seat.scaling for seat in self.seats]
        self._scale: float | DeviceCopies = factors[0]
        if len(set(factors)) > 1:
            rows = [factor for factor, n in zip(factors, self.blocks.sizes, strict=True) for _ in range(n)]
            self._scale = DeviceCopies(torch.tensor(rows)[:, None])
        self._banks: dict[tuple[torch.device, torch.dtype], AdapterBank] = {}

    def scale_on(self, device: torch.device) -> float | Tensor:
        """What each row's branch is multiplied with: one factor, or (t, 1)."""
        return self._scale if isinstance(self._scale, float) else self._scale.on(device)

    def bank(self, device: torch.device, dtype: torch.dtype) -> AdapterBank:
        """The seats' adapters on a device, made when first asked for."""
        key = device, dtype
        if key not in self._banks:
            self._banks[key] = AdapterBank(self.seats, device, dtype)
        return self._banks[key]


class RowOwners:
    """Who owns which rows of an activation. Seats stand in the order of `pack_order`; None is the base."""

    def __init__(self, seats: Sequence[SeatWeights | None], sizes: Sequence[int]) -> None:
        present = [(seat, size) for seat, size in zip(seats, sizes, strict=True) if size]
        self.seats = tuple(seat for seat, _ in present)
        self.blocks = Blocks([size for _, size in present])
        self.num_rows = sum(self.blocks.sizes)
        self.classes: list[RankGroup] = []
        start = 0
        for _, group in groupby(present, key=lambda owned: _padded_rank(owned[0])):
            members = list(group)
            owned = [(seat, size) for seat, size in members if seat is not None]
            if owned:
                self.classes.append(RankGroup(start, owned))
            start += sum(size for _, size in members)
        self._alone: dict[int, RowOwners] = {}

    def alone(self, block: int) -> RowOwners:
        """Those of one block, as if it were the only one."""
        if block not in self._alone:
            self._alone[block] = RowOwners([self.seats[block]], [self.blocks.sizes[block]])
        return self._alone[block]

    def selection(self, num_rows: int) -> RowOwners:
        """Any `num_rows` of these rows, which have one owner."""
        found = RowOwners(self.seats, [num_rows])
        for of_selection, of_all in zip(found.classes, self.classes, strict=True):
            of_selection._banks = of_all._banks
        return found


def _padded_rank(seat: SeatWeights | None) -> int:
    return 0 if seat is None else seat.padded_rank


def pack_order(seats: Sequence[SeatWeights | None]) -> list[int]:
    """Indices of `seats` in the order of their blocks in a pass: ranks together, as `RowOwners` wants them.

    Within a rank they stand as in their buffers, so that a bank finds them at equal distances.
    """
    return sorted(range(len(seats)), key=lambda index: (_padded_rank(seats[index]), _place(seats[index])))


def _place(seat: SeatWeights | None) -> int:
    return 0 if seat is None else min((int(own.storage_offset()) for own, _ in seat.lora.values()), default=0)


@dataclass
class PackContext:
    """The pass that is under way."""

    rows: RowOwners | None = None
    places: Sequence[Tensor] = ()
    """Each block's token ids as indices into its `distinct`."""
    distinct: Sequence[Tensor] = ()
    anchor: Tensor | None = None
    """In training, an input that wants a gradient, so that autograd calls the backward that fills buffers."""

    @property
    def training(self) -> bool:
        return self.anchor is not None

    def rows_of(self, x: Tensor, name: str, *, trained: bool) -> RowOwners:
        """Owners of the rows of `x`.

        A selection has one where the pass, or a module called by block, has one. A frozen layer may see any
        other selection, as one block of nobody.
        """
        assert self.rows is not None
        if x.shape[0] == self.rows.num_rows:
            return self.rows
        if len(self.rows.seats) == 1:
            return self.rows.selection(x.shape[0])
        if not trained:
            return RowOwners([None], [x.shape[0]])
        raise ModelError(
            f"module {name!r} was called on {x.shape[0]} rows of {self.rows.num_rows}, and nothing says "
            "whose they are; leave it out of target_modules"
        )


class PackedModule(nn.Module):
    """What packed modules share: the base's module, its full name, and the pass under way."""

    def __init__(self, base: nn.Module, name: str, context: PackContext) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self._context = context

    @property
    def weight(self) -> Tensor:
        """The base's stored weight; models read its dtype and device."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The base's bias, where it has one."""
        bias: Tensor | None = getattr(self.base, "bias", None)
        return bias


# --- linear layers ------------------------------------------------------------------------------------


class PackedLinear(PackedModule):
    """A frozen linear layer, quantised or not, with a LoRA branch per seat; without one when it is no target.

    Source: LoRA (Hu et al., 2021). The branch computes in the dtype of its input, on fp32 masters, as under
    autocast. With `calls_base` the frozen part is what the base's own forward gives, block by block.
    """

    def __init__(
        self,
        base: nn.Linear,
        name: str,
        index: int | None,
        context: PackContext,
        *,
        resident: bool,
        calls_base: bool = False,
    ) -> None:
        super().__init__(base, name, context)
        self.calls_base = calls_base
        self.index = index
        """Place among the trained layers, which keys its dropout; None for a layer that only computes."""
        self.in_features, self.out_features = base.in_features, base.out_features
        self.shape = name, base.in_features, base.out_features
        """As a bank asks for it."""
        self._resident: Tensor | None = None
        self._keep_resident = resident

    def base_weight(self, dtype: torch.dtype) -> Tensor:
        """The frozen weight (out, in) in `dtype`: the resident copy, or dequantised now."""
        if self._resident is not None and self._resident.dtype == dtype:
            return self._resident
        weight = dequantized_weight(self.base).to(dtype)
        if self._keep_resident:
            self._resident = weight
        return weight

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])  # (T, in)
        if not flat.shape[0]:  # an expert that nobody chose
            return x.new_zeros(*x.shape[:-1], self.out_features)
        rows = self._context.rows_of(flat, self.name, trained=self.index is not None)
        anchor = self._context.anchor if self.index is not None else None
        out: Tensor = _PackedLinearFunction.apply(flat, anchor, self, rows)  # type: ignore[no-untyped-call]
        if self.calls_base:
            out = torch.cat([self.base(part) for part in flat.split(rows.blocks.sizes)]) + out
        return out.view(*x.shape[:-1], self.out_features)

    def frozen_forward(self, x: Tensor, blocks: Blocks) -> Tensor:
        """What of the frozen weight is multiplied here: (T, in) -> (T, out)."""
        if self.calls_base:
            return x.new_zeros(x.shape[0], self.out_features)
        out = matmul_shared(x, self.base_weight(x.dtype).t(), blocks)
        if self.bias is not None:
            out += self.bias.to(x.dtype)
        return out

    def frozen_backward(self, grad: Tensor, blocks: Blocks) -> Tensor:
        """What goes back through it: (T, out) -> (T, in)."""
        if self.calls_base:
            return grad.new_zeros(grad.shape[0], self.in_features)
        return matmul_shared(grad, self.base_weight(grad.dtype), blocks)

    def masks(self, rank_group: RankGroup, dtype: torch.dtype) -> Tensor | None:
        """Factors (t, in) of the seats' dropout on their own rows; None where nothing is dropped."""
        assert self.index is not None
        if not self._context.training or not any(seat.dropout for seat in rank_group.seats):
            return None
        masks = []
        for seat, size in zip(rank_group.seats, rank_group.blocks.sizes, strict=True):
            key = dropout_key(seat.seed, self.index, seat.micro_step)
            shape = (size, self.in_features)
            masks.append(dropout_factors(shape, seat.dropout, key, self.weight.device, dtype))
        return torch.cat(masks) if len(masks) > 1 else masks[0]


class _PackedLinearFunction(torch.autograd.Function):
    """(T, in) -> (T, out): one frozen weight, dequantised once per direction, and the seats' own branches."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor | None, module: PackedLinear, rows: RowOwners) -> Tensor:
        out = module.frozen_forward(x, rows.blocks)
        ctx.module, ctx.rows = module, rows
        kept = [x]
        classes = rows.classes if module.index is not None else ()
        for c in classes:
            part = x[c.start : c.stop]
            mask = module.masks(c, x.dtype)
            a, b = c.bank(x.device, x.dtype).matrices(*module.shape)
            shrunk = matmul_by_block(
                part if mask is None else part * mask, a.transpose(1, 2), c.blocks
            )  # (t, r)
            shrunk *= c.scale_on(x.device)
            out[c.start : c.stop].add_(matmul_by_block(shrunk, b.transpose(1, 2), c.blocks))
            kept.append(shrunk)
        ctx.save_for_backward(*(kept if anchor is not None and classes else ()))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, module, rows = grads[0], ctx.module, ctx.rows
        x, *all_shrunk = ctx.saved_tensors or (grad,)
        dx = module.frozen_backward(grad, rows.blocks) if ctx.needs_input_grad[0] else None
        for c, shrunk in zip(rows.classes if all_shrunk else (), all_shrunk, strict=True):
            here = grad[c.start : c.stop]
            part = x[c.start : c.stop]
            mask = module.masks(c, grad.dtype)
            bank = c.bank(grad.device, grad.dtype)
            a, b = bank.matrices(*module.shape)
            dshrunk = matmul_by_block(here, b, c.blocks)  # (t, r)
            dshrunk *= c.scale_on(grad.device)
            db = outer_by_block(here, shrunk, c.blocks)  # (G, out, r)
            da = outer_by_block(dshrunk, part if mask is None else part * mask, c.blocks)  # (G, r, in)
            bank.add_gradients(*module.shape, da, db)
            if dx is not None:
                through = matmul_by_block(dshrunk, a, c.blocks)  # (t, in)
                dx[c.start : c.stop].add_(through if mask is None else through.mul_(mask))
        return dx, None, None, None
