"""Linear layers that compute for several seats at once, and the record of which rows belong to which seat.

Every linear layer of the base is replaced by a `PackedLinear`, embedding and output layer by the modules of
`embeddings.py`. The shared `PackContext` tells them which rows of their input belong to which seat. Matmuls
are grouped by block (`block_matmul.py`), so nothing depends on a neighbour. Weight gradients are added to the
seats' flat buffers; autograd only carries those of activations.

Shapes: T rows of an activation, t rows of a rank group, G blocks, r padded rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from lora_runner.base.quantization import dequantize_into, dequantized_weight
from lora_runner.base.target_modules import has_own_forward
from lora_runner.errors import ModelError
from lora_runner.layers.adapter_bank import AdapterBank, SeatWeights
from lora_runner.layers.block_matmul import Blocks, matmul_by_block, matmul_shared, outer_by_block
from lora_runner.layers.dropout import dropout_factors, dropout_key
from lora_runner.layout.device_copies import DeviceCopies


class RankGroup:
    """Consecutive blocks whose adapters have one shape, so that one matmul serves them all."""

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
        """LoRA scaling of each row: one factor, or (t, 1)."""
        return self._scale if isinstance(self._scale, float) else self._scale.on(device)

    def bank(self, device: torch.device, dtype: torch.dtype) -> AdapterBank:
        """The seats' adapters on a device, made on first use."""
        key = device, dtype
        if key not in self._banks:
            self._banks[key] = AdapterBank(self.seats, device, dtype)
        return self._banks[key]


class RowOwners:
    """Which rows of an activation belong to which seat, in `pack_order`; None is the plain base."""

    def __init__(self, seats: Sequence[SeatWeights | None], sizes: Sequence[int]) -> None:
        present = [(seat, size) for seat, size in zip(seats, sizes, strict=True) if size]
        self.seats = tuple(seat for seat, _ in present)
        self.blocks = Blocks([size for _, size in present])
        self.num_rows = sum(self.blocks.sizes)
        self.rank_groups: list[RankGroup] = []
        start = 0
        for _, group in groupby(present, key=lambda owned: _padded_rank(owned[0])):
            members = list(group)
            owned = [(seat, size) for seat, size in members if seat is not None]
            if owned:
                self.rank_groups.append(RankGroup(start, owned))
            start += sum(size for _, size in members)
        self._alone: dict[int, RowOwners] = {}

    def alone(self, block: int) -> RowOwners:
        """The owner of one block, as in a pass of that block only."""
        if block not in self._alone:
            self._alone[block] = RowOwners([self.seats[block]], [self.blocks.sizes[block]])
        return self._alone[block]

    def selection(self, num_rows: int) -> RowOwners:
        """The owner of any `num_rows` of these rows, which must have one owner."""
        found = RowOwners(self.seats, [num_rows])
        for of_selection, of_all in zip(found.rank_groups, self.rank_groups, strict=True):
            of_selection._banks = of_all._banks
        return found


def _padded_rank(seat: SeatWeights | None) -> int:
    return 0 if seat is None else seat.padded_rank


def pack_order(seats: Sequence[SeatWeights | None]) -> list[int]:
    """Indices of `seats` in the order of their blocks in a pass: equal ranks together.

    Within a rank they are in the order of their buffers, so that `AdapterBank` finds equal distances.
    """
    return sorted(
        range(len(seats)), key=lambda index: (_padded_rank(seats[index]), _buffer_offset(seats[index]))
    )


def _buffer_offset(seat: SeatWeights | None) -> int:
    return 0 if seat is None else min((int(own.storage_offset()) for own, _ in seat.lora.values()), default=0)


@dataclass
class PackContext:
    """What packed modules need to know of the current pass."""

    fused: Any = None
    """A `fused.FusedPass` while the decoder computes on the fused path."""
    rows: RowOwners | None = None
    distinct_ids: Sequence[Tensor] = ()
    """Each block's sorted distinct token ids."""
    distinct_indices: Sequence[Tensor] = ()
    """Each block's tokens as indices into its `distinct_ids`."""
    anchor: Tensor | None = None
    """In training, an input that requires a gradient, so that autograd calls the layers' backward."""

    @property
    def training(self) -> bool:
        return self.anchor is not None

    def rows_of(self, x: Tensor, name: str, *, trained: bool) -> RowOwners:
        """Owners of the rows of `x`.

        A selection of rows has an owner if the pass, or a module called by block, has a single one. A frozen
        layer may see any other selection, as one block without an owner.
        """
        assert self.rows is not None
        if x.shape[0] == self.rows.num_rows:
            return self.rows
        if len(self.rows.seats) == 1:
            return self.rows.selection(x.shape[0])
        if not trained:
            return RowOwners([None], [x.shape[0]])
        raise ModelError(
            f"module {name!r} was called on {x.shape[0]} rows of {self.rows.num_rows}, and nothing tells "
            "which seats they belong to; leave it out of target_modules"
        )


class PackedModule(nn.Module):
    """What packed modules share: the base's module, its full name, and the current pass."""

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
        """The base's bias, if any."""
        bias: Tensor | None = getattr(self.base, "bias", None)
        return bias


# --- linear layers ------------------------------------------------------------------------------------


class PackedLinear(PackedModule):
    """A frozen linear layer, quantized or not, with a LoRA branch per seat if it is a target.

    Source: LoRA (Hu et al., 2021). The branch computes in the dtype of its input, on fp32 master weights, as
    under autocast.
    """

    def __init__(
        self,
        base: nn.Linear,
        name: str,
        index: int | None,
        context: PackContext,
        *,
        resident: bool,
    ) -> None:
        super().__init__(base, name, context)
        self.calls_base = has_own_forward(base)
        """The frozen part is then the base's own forward, called block by block."""
        self.index = index
        """Index among the trained layers, part of the dropout key; None for a layer without LoRA."""
        self.in_features, self.out_features = base.in_features, base.out_features
        self.shape = name, base.in_features, base.out_features
        """Arguments of `AdapterBank.matrices`."""
        self._resident: Tensor | None = None
        self.keeps_resident = resident
        self.group: Any = None
        """On the fused path, the `fused.LinearGroup` of the layers that read the same input."""

    def base_weight(self, dtype: torch.dtype) -> Tensor:
        """The frozen weight (out, in) in `dtype`: the resident copy, or dequantized now."""
        if self.group is not None:
            weight: Tensor = self.group.member_weight(self, dtype)
            return weight
        if self._resident is not None and self._resident.dtype == dtype:
            return self._resident
        weight = dequantized_weight(self.base).to(dtype)
        if self.keeps_resident:
            self._resident = weight
        return weight

    @staticmethod
    def write_base_weights(layers: Sequence[PackedLinear], into: Tensor) -> None:
        """Write frozen weights to `into` (sum of out, in), which takes the place of resident copies."""
        if all(layer._resident is None for layer in layers):
            dequantize_into(into, *(layer.base for layer in layers))
            return
        for layer, rows in zip(layers, into.split([layer.out_features for layer in layers]), strict=True):
            if layer._resident is None:
                dequantize_into(rows, layer.base)
            else:
                rows.copy_(layer._resident)
                layer._resident = None

    def forward(self, x: Tensor) -> Tensor:
        if self._context.fused is not None and self.group is not None:
            out: Tensor = self.group.output(self, x)
            return out
        flat = x.reshape(-1, x.shape[-1])  # (T, in)
        if not flat.shape[0]:  # an expert without tokens
            return x.new_zeros(*x.shape[:-1], self.out_features)
        rows = self._context.rows_of(flat, self.name, trained=self.index is not None)
        anchor = self._context.anchor if self.index is not None else None
        out = _PackedLinearFunction.apply(flat, anchor, self, rows)  # type: ignore[no-untyped-call]
        if self.calls_base:
            out = torch.cat([self.base(part) for part in flat.split(rows.blocks.sizes)]) + out
        return out.view(*x.shape[:-1], self.out_features)

    def frozen_forward(self, x: Tensor, blocks: Blocks) -> Tensor:
        """The frozen part: (T, in) -> (T, out); zeros if the base computes it."""
        if self.calls_base:
            return x.new_zeros(x.shape[0], self.out_features)
        out = matmul_shared(x, self.base_weight(x.dtype).t(), blocks)
        if self.bias is not None:
            out += self.bias.to(x.dtype)
        return out

    def frozen_backward(self, grad: Tensor, blocks: Blocks) -> Tensor:
        """Its gradient: (T, out) -> (T, in)."""
        if self.calls_base:
            return grad.new_zeros(grad.shape[0], self.in_features)
        return matmul_shared(grad, self.base_weight(grad.dtype), blocks)

    def masks(self, rank_group: RankGroup, dtype: torch.dtype) -> Tensor | None:
        """Dropout factors (t, in) of the seats' own rows; None where nothing is dropped."""
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
    """(T, in) -> (T, out): one frozen weight, dequantized once per direction, and each seat's LoRA branch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor | None, module: PackedLinear, rows: RowOwners) -> Tensor:
        out = module.frozen_forward(x, rows.blocks)
        ctx.module, ctx.rows = module, rows
        kept = [x]
        groups = rows.rank_groups if module.index is not None else ()
        for group in groups:
            part = x[group.start : group.stop]
            mask = module.masks(group, x.dtype)
            a, b = group.bank(x.device, x.dtype).matrices(*module.shape)
            shrunk = matmul_by_block(
                part if mask is None else part * mask, a.transpose(1, 2), group.blocks
            )  # (t, r)
            shrunk *= group.scale_on(x.device)
            out[group.start : group.stop].add_(matmul_by_block(shrunk, b.transpose(1, 2), group.blocks))
            kept.append(shrunk)
        ctx.save_for_backward(*(kept if anchor is not None and groups else ()))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, module, rows = grads[0], ctx.module, ctx.rows
        x, *all_shrunk = ctx.saved_tensors or (grad,)
        dx = module.frozen_backward(grad, rows.blocks) if ctx.needs_input_grad[0] else None
        for group, shrunk in zip(rows.rank_groups if all_shrunk else (), all_shrunk, strict=True):
            here = grad[group.start : group.stop]
            part = x[group.start : group.stop]
            mask = module.masks(group, grad.dtype)
            bank = group.bank(grad.device, grad.dtype)
            a, b = bank.matrices(*module.shape)
            dshrunk = matmul_by_block(here, b, group.blocks)  # (t, r)
            dshrunk *= group.scale_on(grad.device)
            db = outer_by_block(here, shrunk, group.blocks)  # (G, out, r)
            da = outer_by_block(dshrunk, part if mask is None else part * mask, group.blocks)  # (G, r, in)
            bank.add_gradients(*module.shape, da, db)
            if dx is not None:
                through = matmul_by_block(dshrunk, a, group.blocks)  # (t, in)
                dx[group.start : group.stop].add_(through if mask is None else through.mul_(mask))
        return dx, None, None, None
