"""Linear layers that read the same input, computed for all trials of a pack in a few launches.

One product over all rows serves the frozen weights of all siblings (q, k and v; gate and up), two more
launches their adapters: the input is shrunk to the rank of each trial, and expanded onto the outputs.

Shapes: T rows of a pass, `in` and `out` the sides of a sibling, S siblings, R columns for a rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lora_runner.fused.fused_pass import FusedPass
from lora_runner.kernels.adapter_group import AdapterGroup
from lora_runner.kernels.frozen_product import frozen_product, way_for
from lora_runner.kernels.lora.expand import expand_inputs_, expand_outputs_
from lora_runner.kernels.lora.gradients import add_adapter_gradients
from lora_runner.kernels.lora.shrink import shrink_gradients, shrink_inputs
from lora_runner.layers.linear import PackContext, PackedLinear


class LinearGroup:
    """Siblings, all with an adapter or none; the first that is called with an input computes all of them."""

    def __init__(
        self, members: Sequence[PackedLinear], context: PackContext, before: Mapping[int, int]
    ) -> None:
        """`before`: by index among the trained layers, elements per rank of the adapters before a layer's."""
        self.members = tuple(members)
        self._context = context
        self._sizes = [member.out_features for member in members]
        self.bias = self._joint_bias()
        self.adapters: AdapterGroup | None = None
        layers = [member.index for member in members if member.index is not None]
        if layers:
            assert len(layers) == len(members)
            self.adapters = AdapterGroup.of(
                members[0].in_features,
                self._sizes,
                before=[before[layer] for layer in layers],
                layers=layers,
                device=members[0].weight.device,
            )
        self._input: Tensor | None = None
        self._outputs: dict[str, Tensor] = {}
        self._weight: Tensor | None = None
        for member in members:
            member.group = self

    def output(self, member: PackedLinear, x: Tensor) -> Tensor:
        """One member's output (..., out) for `x` (..., in), computed with all others' on the first call."""
        if x is not self._input or member.name not in self._outputs:
            anchor = self._context.anchor if self.adapters is not None else None
            flat = x.reshape(-1, x.shape[-1])
            outputs = _LinearGroupFunction.apply(flat, anchor, self, self._context.fused)  # type: ignore[no-untyped-call]
            self._input = x
            self._outputs = {
                one.name: out.view(*x.shape[:-1], out.shape[-1])
                for one, out in zip(self.members, outputs, strict=True)
            }
        found = self._outputs.pop(member.name)
        if not self._outputs:
            self._input = None
        return found

    def forget(self) -> None:
        """Drop outputs that no member has asked for."""
        self._input, self._outputs = None, {}

    def weight(self, dtype: torch.dtype) -> Tensor:
        """The siblings' frozen weights (sum of out, in): the resident copy, or dequantized now."""
        if self._weight is not None and self._weight.dtype == dtype:
            return self._weight
        first = self.members[0]
        joint = torch.empty(sum(self._sizes), first.in_features, dtype=dtype, device=first.weight.device)
        PackedLinear.write_base_weights(self.members, joint)
        if first.keeps_resident:
            self._weight = joint
        return joint

    def member_weight(self, member: PackedLinear, dtype: torch.dtype) -> Tensor:
        """One member's rows of `weight`."""
        rows: Tensor = self.weight(dtype).split(self._sizes)[self.members.index(member)]
        return rows

    def _joint_bias(self) -> Tensor | None:
        """The siblings' biases (sum of out), zeros for one without; None if none has any."""
        biases = [member.bias for member in self.members]
        given = next((bias for bias in biases if bias is not None), None)
        if given is None:
            return None
        sizes = zip(biases, self._sizes, strict=True)
        return torch.cat([given.new_zeros(size) if bias is None else bias.detach() for bias, size in sizes])


class _LinearGroupFunction(torch.autograd.Function):
    """(T, in) -> (T, out) of each sibling; adds the adapters' gradients to the flat buffer."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor | None, group: LinearGroup, fused: FusedPass
    ) -> tuple[Tensor, ...]:
        ctx.group, ctx.fused = group, fused
        out = _product(x, group.weight(x.dtype).t())
        if group.bias is not None:
            out += group.bias.to(x.dtype)
        if group.adapters is not None:
            columns = fused.rank_columns
            shrunk = shrink_inputs(x, fused.parameters, group.adapters, fused.tables, columns)
            expand_outputs_(out, shrunk, fused.parameters, group.adapters, fused.tables, columns)
            if anchor is not None:
                ctx.save_for_backward(x, shrunk)
        parts: tuple[Tensor, ...] = out.split(group._sizes, dim=1)
        return parts

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        group, fused = ctx.group, ctx.fused
        grad = joined_columns(grads)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = _product(grad, group.weight(grad.dtype))
        # Asked for once: a checkpoint computes them again each time.
        if saved := ctx.saved_tensors:
            (x, shrunk), columns = saved, fused.rank_columns
            dshrunk = shrink_gradients(grad, fused.parameters, group.adapters, fused.tables, columns)
            add_adapter_gradients(
                fused.gradients, x, grad, shrunk, dshrunk, group.adapters, fused.tables, columns
            )
            if dx is not None:
                expand_inputs_(dx, dshrunk, fused.parameters, group.adapters, fused.tables, columns)
        return dx, None, None, None


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """`x` (T, k) times `weight` (k, n), by the way that the certificate of the machine has chosen, if any."""
    return frozen_product(x, weight, way_for(x, weight) or "triton")


def joined_columns(parts: Sequence[Tensor]) -> Tensor:
    """The parts (T, n) side by side, (T, sum of n): without a copy where they lie so already."""
    first, width = parts[0], sum(part.shape[1] for part in parts)
    if len(parts) == 1:
        return first if first.stride(1) == 1 else first.contiguous()
    offset = first.storage_offset()
    for part in parts:
        beside = (
            part.untyped_storage()._cdata == first.untyped_storage()._cdata
            and part.stride() == (width, 1)
            and part.storage_offset() == offset
        )
        if not beside:
            return torch.cat(tuple(parts), dim=1)
        offset += part.shape[1]
    return first.as_strided((first.shape[0], width), (width, 1), first.storage_offset())
